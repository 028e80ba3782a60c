"""Checks of the cluster: nodes, versions, shared output, CUDA, disk, token. Each goes from facts to a finding."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

from raypipe.doctor.findings import Finding, from_places, size_text
from raypipe.doctor.survey import Gpu, Node, View

FULLEST_DISK = 0.95
"""Ray stops spilling to a disk that is fuller."""


def check_nodes(nodes: Sequence[Node]) -> Finding:
    """Each node can run a task."""
    mute = {node.name: node.view for node in nodes if isinstance(node.view, str)}
    if mute:
        return Finding(
            check="nodes",
            status="problem",
            found=from_places(mute),
            needed=f"{len(nodes)} nodes that run tasks of this raypipe",
            way_out="install the same raypipe on all of them (one image), or take these nodes out",
        )
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return Finding(check="nodes", status="ok", found=f"{len(nodes)} answer; {cpus:g} CPUs, {gpus:g} GPUs")


def check_versions(places: Mapping[str, View]) -> Finding:
    """Equal versions everywhere, and a Ray that this raypipe works with."""
    problems = []
    for name in ("python", "ray", "raypipe", "torch"):
        found = {place: view.versions[name] for place, view in places.items()}
        if len(set(found.values())) > 1:
            problems.append(f"{name} {from_places(found)}")
    wanted, ours = _wanted_ray(), next(iter(places.values())).versions
    if wanted is not None and not wanted.specifier.contains(ours["ray"], prereleases=True):
        problems.append(f"ray {ours['ray']}")
    if problems:
        return Finding(
            check="versions",
            status="problem",
            found="; ".join(problems),
            needed=f"the same versions everywhere, and {wanted or 'ray'}",
            way_out="one image for all nodes, made with constraints.txt",
        )
    return Finding(check="versions", status="ok", found=", ".join(f"{name} {ours[name]}" for name in ours))


def _wanted_ray() -> Requirement | None:
    try:
        wanted = map(Requirement, requires("raypipe-masks") or [])
    except PackageNotFoundError:  # run from a working directory
        return None
    return next((requirement for requirement in wanted if requirement.name == "ray"), None)


def check_out(out: str, places: Mapping[str, View]) -> Finding:
    """A probe can be written, read, listed and deleted from everywhere, and is seen everywhere."""
    problems = {place: ", ".join(view.out) for place, view in places.items() if view.out}
    if problems:
        return Finding(
            check="out",
            status="problem",
            found=f"{out} {from_places(problems)}",
            needed="a place that the driver and all nodes can write, read, list and delete in",
            way_out="a URI or a shared folder; rights and credentials on every node, not on the driver's alone",
        )
    return Finding(check="out", status="ok", found=f"{out}: probes written, read, listed, deleted")


def check_cuda(gpus: Mapping[str, Gpu | str]) -> Finding:
    """Torch sees the GPUs that Ray hands out."""
    blind = {node: gpu for node, gpu in gpus.items() if isinstance(gpu, str)}
    if blind:
        return Finding(
            check="CUDA",
            status="problem",
            found=from_places(blind),
            needed="a build of torch for CUDA, and a driver of the GPU that is new enough for it",
            way_out="see nvidia-smi on these nodes; torch of infra/Dockerfile's image",
        )
    names = sorted({f"{gpu.name}, {size_text(gpu.memory)}" for gpu in gpus.values() if isinstance(gpu, Gpu)})
    return Finding(check="CUDA", status="ok", found="; ".join(names) or "no GPUs")


def check_disk(nodes: Sequence[Node]) -> Finding:
    """Room for what Ray spills. A run that never spills needs none, so it is a warning at worst."""
    lines, enough = [], True
    for node in nodes:
        if isinstance(node.view, str) or node.view.disk is None:
            continue
        total, free = node.view.disk
        room = max(0, free - (1 - FULLEST_DISK) * total)
        lines.append(f"{node.name} {size_text(room)}")
        enough = enough and room > 0 and room >= node.resources.get("object_store_memory", 0)
    found = f"free for spilling: {', '.join(lines) or 'not known'}"
    if enough:
        return Finding(check="disk", status="ok", found=found)
    return Finding(
        check="disk",
        status="warning",
        found=found,
        needed=f"the size of the object store, on a disk less than {100 * FULLEST_DISK:.0f} % full: Ray doesn't "
        "spill to a fuller one, and a run that has to spill then fails",
        way_out="a larger disk, or ray start --object-spilling-directory on another one",
    )


def check_authentication(gcs_address: str, mode: str | None) -> Finding:
    """Who reaches Ray's ports can run code, unless Ray asks for a token."""
    if mode == "token":
        return Finding(check="token", status="ok", found="Ray asks for its token")
    if gcs_address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1"):
        return Finding(check="token", status="ok", found=f"none, but Ray listens on loopback only ({gcs_address})")
    return Finding(
        check="token",
        status="warning",
        found=f"RAY_AUTH_MODE is {mode or 'not set'}, and Ray listens at {gcs_address}",
        needed="a token: whoever reaches Ray's ports or dashboard can run code",
        way_out="RAY_AUTH_MODE=token on all nodes and here, and `ray get-auth-token --generate`",
    )
