"""Checks of the cluster: nodes, versions, shared output, CUDA, disk, token. Each goes from facts to a finding."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

from raypipe.doctor.findings import Finding, from_places, judge, size_text
from raypipe.doctor.survey import FULLEST_DISK, Gpu, Node, View


def places_of(driver: View, nodes: Sequence[Node]) -> dict[str, View]:
    """What the driver and the nodes that could tell see, by their names."""
    return {"the driver": driver} | {node.name: node.view for node in nodes if isinstance(node.view, View)}


def check_alike(out: str, driver: View, nodes: Sequence[Node]) -> Iterator[Finding]:
    """The nodes run tasks, have the driver's versions and share its output folder."""
    places = places_of(driver, nodes)
    yield from (check_nodes(nodes), check_versions(places), check_out(out, places))


def check_nodes(nodes: Sequence[Node]) -> Finding:
    """Each node can run a task."""
    mute = {node.name: node.view for node in nodes if isinstance(node.view, str)}
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return judge(
        "nodes",
        from_places(mute) or f"{len(nodes)} answer; {cpus:g} CPUs, {gpus:g} GPUs",
        status="problem" if mute else "ok",
        needed=f"{len(nodes)} nodes that run tasks of this raypipe",
        way_out="install the same raypipe on all of them (one image), or take these nodes out",
    )


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
        needed="a place that the driver and all nodes can write, read, list and delete in",
        way_out="a URI or a shared folder; rights and credentials on every node, not on the driver's alone",
    )


def check_cuda(gpus: Mapping[str, Gpu | str]) -> Finding:
    """Torch sees the GPUs that Ray hands out."""
    blind = {node: gpu for node, gpu in gpus.items() if isinstance(gpu, str)}
    names = sorted({f"{gpu.name}, {size_text(gpu.memory)}" for gpu in gpus.values() if isinstance(gpu, Gpu)})
    return judge(
        "CUDA",
        from_places(blind) or "; ".join(names) or "no GPUs",
        status="problem" if blind else "ok",
        needed="a build of torch for CUDA, and a driver of the GPU that is new enough for it",
        way_out="see nvidia-smi on these nodes; torch of infra/Dockerfile's image",
    )


def check_disk(nodes: Sequence[Node]) -> Finding:
    """Room for what Ray spills. A run that never spills needs none, so it is a warning at worst."""
    known = [(node, node.view.spill_room) for node in nodes if isinstance(node.view, View)]
    rooms = [(node, room) for node, room in known if room is not None]
    enough = all(room > 0 and room >= node.resources.get("object_store_memory", 0) for node, room in rooms)
    return judge(
        "disk",
        f"free for spilling: {', '.join(f'{node.name} {size_text(room)}' for node, room in rooms) or 'not known'}",
        status="ok" if enough else "warning",
        needed=f"the size of the object store, on a disk less than {100 * FULLEST_DISK:.0f} % full: Ray doesn't "
        "spill to a fuller one, and a run that has to spill then fails",
        way_out="a larger disk, or ray start --object-spilling-directory on another one",
    )


def check_authentication(gcs_address: str, mode: str | None) -> Finding:
    """Who reaches Ray's ports can run code, unless Ray asks for a token."""
    loopback = gcs_address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")
    if mode == "token":
        found = "Ray asks for its token"
    elif loopback:
        found = f"none, but Ray listens on loopback only ({gcs_address})"
    else:
        found = f"RAY_AUTH_MODE is {mode or 'not set'}, and Ray listens at {gcs_address}"
    return judge(
        "token",
        found,
        status="ok" if mode == "token" or loopback else "warning",
        needed="a token: whoever reaches Ray's ports or dashboard can run code",
        way_out="RAY_AUTH_MODE=token on all nodes and here, and `ray get-auth-token --generate`",
    )
