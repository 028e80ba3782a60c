"""Checks of the cluster that only `doctor` makes: CUDA, disk, token. Each goes from facts to a finding."""

from collections.abc import Mapping, Sequence

from raypipe.cluster.findings import Finding, from_places, judge, size_text
from raypipe.cluster.survey import FULLEST_DISK, Gpu, Node, View


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
