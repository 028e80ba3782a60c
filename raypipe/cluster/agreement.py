"""Checks that the nodes of a cluster agree: on versions, on the output folder, on the time. From views to findings."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

from raypipe.cluster.findings import Finding, from_places, judge
from raypipe.cluster.survey import Node, View

MOST_CLOCK_ERROR = 300.0
"""Seconds by which a clock may differ from the driver's. S3 refuses what was signed 15 minutes ago or later."""

OUT_NEEDED = "a place that the driver and all nodes can write, read, list and delete in"
CLOCK_NEEDED = f"clocks within {MOST_CLOCK_ERROR / 60:g} minutes of the driver's; S3 refuses requests from 15 on"
CLOCK_WAY_OUT = "a time service (NTP, chrony) on every node, and on the driver's"


def places_of(driver: View, nodes: Sequence[Node]) -> dict[str, View]:
    """What the driver and the nodes that could tell see, by their names."""
    return {"the driver": driver} | {node.name: node.view for node in nodes if isinstance(node.view, View)}


def check_alike(out: str, driver: View, nodes: Sequence[Node]) -> Iterator[Finding]:
    """The nodes run tasks, have the driver's versions, share its output folder and its time."""
    places = places_of(driver, nodes)
    yield from (check_nodes(nodes), check_versions(places), check_out(out, places), check_clocks(nodes))


def check_nodes(nodes: Sequence[Node]) -> Finding:
    """Each node can run a task."""
    mute = {node.name: node.view for node in nodes if isinstance(node.view, str)}
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return judge(
        "nodes",
        from_places(mute) or f"{len(nodes)} answer; {cpus:g} CPUs{_cores(nodes, cpus)}, {gpus:g} GPUs",
        status="problem" if mute else "ok",
        needed=f"{len(nodes)} nodes that run tasks of this raypipe",
        way_out="install the same raypipe on all of them (one image), or take these nodes out",
    )


def _cores(nodes: Sequence[Node], cpus: float) -> str:
    """What is behind Ray's CPUs, where that is something else: they are a number that whoever starts a node may say."""
    cores = sum(node.view.cores for node in nodes if isinstance(node.view, View))
    if cores == cpus:
        return ""
    more = "so many processes share them" if cores < cpus else "the others stay idle"
    return f" as Ray counts them, on {cores:g} cores ({more})"


def check_versions(places: Mapping[str, View]) -> Finding:
    """Equal versions everywhere, and a Ray that this raypipe works with."""
    wanted, ours = _wanted_ray(), next(iter(places.values())).versions
    seen = {name: {place: view.versions[name] for place, view in places.items()} for name in ours}
    problems = [f"{name} {from_places(found)}" for name, found in seen.items() if len(set(found.values())) > 1]
    if wanted is not None and not wanted.specifier.contains(ours["ray"], prereleases=True):
        problems.append(f"ray {ours['ray']}")
    return judge(
        "versions",
        "; ".join(problems) or ", ".join(f"{name} {version}" for name, version in ours.items()),
        status="problem" if problems else "ok",
        needed=f"the same versions everywhere, and {wanted or 'ray'}",
        way_out="one image for all nodes, made with constraints.txt",
    )


def _wanted_ray() -> Requirement | None:
    try:
        wanted = map(Requirement, requires("raypipe-masks") or [])
    except PackageNotFoundError:  # run from a working directory
        return None
    return next((requirement for requirement in wanted if requirement.name == "ray"), None)


def check_out(out: str, places: Mapping[str, View]) -> Finding:
    """A probe can be written, read, listed and deleted from everywhere, and is seen everywhere."""
    problems = {place: ", ".join(view.out) for place, view in places.items() if view.out}
    return judge(
        "out",
        f"{out} {from_places(problems)}" if problems else f"{out}: probes written, read, listed, deleted",
        status="problem" if problems else "ok",
        needed=OUT_NEEDED,
        way_out="a URI or a shared folder; rights and credentials on every node, not on the driver's alone",
    )


def check_clocks(nodes: Sequence[Node]) -> Finding:
    """All clocks agree with the driver's, about."""
    wrong = {node.name: text for node in nodes if (text := clock_problem(node))}
    return judge(
        "clocks",
        from_places(wrong) or "they agree",
        status="problem" if wrong else "ok",
        needed=CLOCK_NEEDED,
        way_out=CLOCK_WAY_OUT,
    )


def clock_problem(node: Node) -> str | None:
    """How far a node's clock is off; None where that does no harm."""
    if abs(node.clock_error) <= MOST_CLOCK_ERROR:
        return None
    direction = "ahead of" if node.clock_error > 0 else "behind"
    return f"the clock is {abs(node.clock_error) / 60:.0f} minutes {direction} the driver's"
