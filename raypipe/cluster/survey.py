"""What the driver and each node of a cluster have and can reach, looked at from there.

Credentials that only the driver has, and a folder that isn't the same one everywhere, are seen in no other way.
"""

import os
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import raypipe
from raypipe import storage
from raypipe.cluster.probes import absent, describe, hidden, probing

SECONDS = 300
"""How long nodes may take to tell what they see."""

FULLEST_DISK = 0.95
"""Ray stops spilling to a disk that is fuller."""

BUSY = "it is busy or hangs"


@dataclass(frozen=True, kw_only=True)
class View:
    """What one machine sees."""

    versions: dict[str, str]
    """Of python (without its patch level), ray, raypipe and torch."""
    out: list[str]
    """What didn't work at `out`."""
    unread: dict[str, str]
    """Images that can't be read, and why."""
    absent: dict[str, str]
    """Files that aren't there, and why."""
    cores: int
    lacking: tuple[str, ...] = ()
    """Packages that aren't installed."""
    spill_room: float | None = None
    """Bytes that Ray can spill to this machine's disk; None where that isn't known."""
    clock: float = 0.0
    """Seconds since the epoch when the look was over, by this machine's clock."""


Silence = Literal["late", "died", "failed"]
"""Why a node has no view: it hasn't answered in time; it, or the process there, has died; the task failed there."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster."""

    id: str
    """As Ray has it."""
    name: str
    resources: dict[str, float]
    view: View | str
    """A text says why there is none."""
    silence: Silence | None = None
    """Why there is no view; None where there is one."""
    beside_driver: bool = False
    """It has the address of the driver's own node."""
    clock_error: float = 0.0
    """Seconds by which its clock is ahead of the driver's, or behind where negative; what the answer may have taken on
    its way isn't counted, so that it is no more than the true difference."""

    @property
    def works(self) -> bool:
        """Whether it has CPUs or GPUs for streams and trainings."""
        return any(self.resources.get(kind, 0) > 0 for kind in ("CPU", "GPU"))


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What torch sees of a node's first GPU."""

    name: str
    memory: int


def survey(
    *,
    out: str,
    image_uris: Sequence[str] = (),
    files: Sequence[str] = (),
    packages: Sequence[str] = (),
    seconds: float = SECONDS,
) -> tuple[View, list[Node]]:
    """What the driver and every node see.

    Args:
        out: URI under which probes are written, read, listed and deleted.
        image_uris: images to read.
        files: files that must be there.
        packages: what must be installed, by importable names.
        seconds: how long all nodes together may take.
    """
    deadline = time.monotonic() + seconds
    with probing(out) as (beacon, problems):
        given: dict[str, Any] = {"out": out, "image_uris": image_uris, "files": files, "packages": packages}
        given["beacon"] = None if problems else beacon
        alive, asked = alive_nodes(), time.time()
        # Ray spills beside its sockets, unless it was told another folder. No CPUs: a busy node can tell, too.
        refs = [
            _on(node, look).remote(**given, spill_folder=str(Path(node["ObjectStoreSocketName"]).parent.parent))
            for node in alive
        ]
        driver = look(**given)
        answers = [(*_answer(ref, deadline), time.time()) for ref in refs]
    here = _driver_address(alive)
    return driver, [
        Node(
            id=node["NodeID"],
            name=_name(node),
            resources=node["Resources"],
            view=f"it didn't answer within {seconds:g} s: {BUSY}" if silence == "late" else answer,
            silence=silence,
            beside_driver=node["NodeManagerAddress"] == here,
            clock_error=_clock_error(answer.clock, asked, told) if isinstance(answer, View) else 0.0,
        )
        for node, (answer, silence, told) in zip(alive, answers, strict=True)
    ]


def find_gpus() -> dict[str, Gpu | str]:
    """What torch sees on each node that has GPUs; a text says why it sees none."""
    deadline = time.monotonic() + SECONDS
    nodes = [node for node in alive_nodes() if node["Resources"].get("GPU")]
    # Ray shows a GPU to those only that ask for a part of one.
    refs = [_on(node, look_for_gpu, num_gpus=0.01).remote() for node in nodes]
    late = f"no GPU was free there within {SECONDS} s: {BUSY}"
    return {_name(node): _answer(ref, deadline)[0] or late for node, ref in zip(nodes, refs, strict=True)}


def look(
    *,
    out: str,
    beacon: str | None,
    image_uris: Sequence[str],
    files: Sequence[str],
    packages: Sequence[str] = (),
    spill_folder: str | None = None,
) -> View:
    """What this machine sees.

    Args:
        out: see `survey`.
        beacon: probe of another machine, which should be seen from here; None where it couldn't be written.
        image_uris: see `survey`.
        files: see `survey`.
        packages: see `survey`.
        spill_folder: where Ray spills to.
    """
    with probing(out) as (_, problems):
        if beacon and not problems and (reason := hidden(beacon)):
            problems.append(f"it is another place than the driver's: a probe of the driver isn't there ({reason})")
    unread = {uri: found for uri, found in storage.read_many(set(image_uris)).items() if isinstance(found, Exception)}
    return View(
        versions=versions(),
        out=problems,
        unread={uri: describe(error) for uri, error in unread.items()},
        absent={uri: reason for uri in files if (reason := absent(uri))},
        cores=len(os.sched_getaffinity(0)),
        lacking=tuple(missing_packages(packages)),
        spill_room=_spill_room(spill_folder) if spill_folder else None,
        clock=time.time(),
    )


def versions() -> dict[str, str]:
    """Versions of what computes, as this machine's files have them: torch isn't imported, which takes seconds."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "ray": ray.__version__,
        "raypipe": raypipe.__version__,
        "torch": _torch_version(),
    }


def _torch_version() -> str:
    found = find_spec("torch")
    if found is None or found.origin is None:
        return "missing"
    # Not the package's metadata: what is imported is this file.
    return str(runpy.run_path(str(Path(found.origin).with_name("version.py")))["__version__"])


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Those of some packages that aren't installed on this machine; none is imported."""
    return [name for name in packages if find_spec(name) is None]


def look_for_gpu() -> Gpu | str:
    """What torch sees of this machine's first GPU."""
    import torch  # takes seconds

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU there"
    properties = torch.cuda.get_device_properties(0)
    return Gpu(name=properties.name, memory=properties.total_memory)


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes that Ray has, as `ray.nodes` describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _name(node: dict[str, Any]) -> str:
    # As `ray list nodes` finds it; several may share an address.
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"


def _on(node: dict[str, Any], function: Any, *, num_gpus: float = 0) -> Any:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    remote: Any = ray.remote(function)
    return remote.options(num_cpus=0, num_gpus=num_gpus, max_retries=0, scheduling_strategy=here)


def _answer(ref: Any, deadline: float) -> tuple[Any, Silence | None]:
    """What a task returns, or, if it failed, a text and why; None where it isn't done in time."""
    try:
        return ray.get(ref, timeout=max(0.0, deadline - time.monotonic())), None
    except ray.exceptions.GetTimeoutError:
        ray.cancel(ref)
        return None, "late"
    except ray.exceptions.RayTaskError as error:
        return f"a task failed there: {_last_line(error)}", "failed"
    except ray.exceptions.RayError as error:
        return f"no task could run there: {_last_line(error)}", "died"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _driver_address(nodes: Sequence[dict[str, Any]]) -> str | None:
    own = ray.get_runtime_context().get_node_id()
    return next((node["NodeManagerAddress"] for node in nodes if node["NodeID"] == own), None)


def _clock_error(clock: float, asked: float, told: float) -> float:
    """How far a clock lies outside the time between question and answer."""
    return clock - max(asked, min(clock, told))


def _spill_room(folder: str) -> float | None:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return max(0, usage.free - (1 - FULLEST_DISK) * usage.total)
