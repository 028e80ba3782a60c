"""Strikes at a run: kills or stops its processes and nodes, takes its storage away, and puts right what it has to."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired

import psutil
from ray.cluster_utils import Cluster
from stores import Proxy, num_spoiled

from disorder.schedule import Kind, Strike

WATCH, CONTROLLER, TRAINER = "ray::Watch", "ray::TrainController", "ray::RayTrainWorker"
WORKERS = ("ray::Map", "ray::_call", TRAINER)
"""How the titles of processes begin that work on rows: those of the streams, raypipe's tasks, those of trainings."""

LOOKING = 15.0
"""Seconds in which a process to strike at may still start."""


@dataclass
class Command:
    """The command of a run, which is given again when it was killed."""

    begin: Callable[[], Popen[str]]
    driver: Popen[str]
    num_starts: int = 1

    def kill(self) -> bool:
        """SIGKILL, and the same command again at once; False where it had ended by itself."""
        if self.driver.poll() is not None:
            return False
        self.driver.kill()
        self.driver.wait(timeout=60)
        self.driver, self.num_starts = self.begin(), self.num_starts + 1
        return True

    def ends_within(self, seconds: float) -> bool:
        """Waits so long at most; whether it has ended."""
        with suppress(TimeoutExpired):
            self.driver.wait(timeout=seconds)
        return self.driver.poll() is not None


@dataclass(frozen=True)
class Struck:
    """A fault that came."""

    at: float
    """Seconds after the start of the run."""
    strike: Strike
    hit: str | None
    """What it hit; None where there was nothing."""

    def __str__(self) -> str:
        """When, what and whom."""
        return f"{self.at:.0f} s {self.strike} ({self.hit or 'there was none'})"


@dataclass
class Striker:
    """What can be struck at."""

    cluster: Cluster
    add_node: Callable[[], None]
    """Adds a node to it."""
    proxy: Proxy
    """Before the storage."""

    def strike(self, strike: Strike, command: Command) -> str | None:
        """Strikes, and returns when it is over: what was hit, None where there was nothing."""
        match strike.kind:
            case Kind.WORKER | Kind.TRAINER | Kind.CONTROLLER | Kind.WATCH:
                return self._signal(strike, psutil.Process.kill)
            case Kind.STOPPED:
                return self._signal(strike, lambda process: stop_for(process, strike.seconds))
            case Kind.RAYLET:
                return self._replace_node(strike)
            case Kind.DRIVER:
                return "the driver" if command.kill() else None
            case Kind.AWAY | Kind.SPOILED:
                return self._disturb_storage(strike)

    def processes(self, kind: Kind) -> Sequence[tuple[psutil.Process, str]]:
        """Those of the cluster that a kind of fault may hit, with their titles, by age."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline()).strip()
                if may_hit(kind, title):
                    found.append((process.create_time(), process.pid, process, title))
        return [(process, title) for *_, process, title in sorted(found, key=lambda each: each[:2])]

    def _signal(self, strike: Strike, act: Callable[[psutil.Process], None]) -> str | None:
        end = time.monotonic() + LOOKING
        while time.monotonic() < end:
            found = self.processes(strike.kind)
            if found:
                process, title = found[int(strike.pick * len(found))]
                with suppress(psutil.NoSuchProcess):  # it ended meanwhile: another one is looked for
                    act(process)
                    return title
            time.sleep(0.2)
        return None

    def _replace_node(self, strike: Strike) -> str:
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: str(node.plasma_store_socket_name))
        node = nodes[int(strike.pick * len(nodes))]
        self.cluster.remove_node(node, allow_graceful=False)
        time.sleep(strike.seconds)
        self.add_node()
        return f"node {node.node_id[:8]}"

    def _disturb_storage(self, strike: Strike) -> str:
        self.proxy.stop()
        hit = "the storage"
        if strike.kind is Kind.SPOILED:
            self.proxy.start(strike.rate, seed=strike.seed)
        time.sleep(strike.seconds)
        if strike.kind is Kind.SPOILED:
            hit = f"{num_spoiled(self.proxy.now())} requests"
            self.proxy.stop()
        self.proxy.start()
        return hit


def may_hit(kind: Kind, title: str) -> bool:
    """Whether a fault is one of the process of that title."""
    alone = {Kind.WATCH: WATCH, Kind.CONTROLLER: CONTROLLER, Kind.TRAINER: TRAINER}
    return title.startswith(alone.get(kind, WORKERS))


def stop_for(process: psutil.Process, seconds: float) -> None:
    """SIGSTOP, and some seconds later SIGCONT, as a machine that has no time for a process."""
    process.suspend()
    try:
        time.sleep(seconds)
    finally:
        process.resume()
