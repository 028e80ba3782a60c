"""A real Ray cluster of several raylets: what the documented commands start, on one machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from raypipe.streams.job import GPU_DEVICE

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class RayCluster:
    """A cluster of raylets."""

    address: str
    """For `ray.init`."""
    jobs: str
    """URL of the server of `ray job submit`."""
    nodes: list[subprocess.Popen[bytes]]
    """`ray start --block` of each node, the head's first."""
    add_node: Callable[[], None]
    """Starts one more node, of 8 CPUs."""

    def kill_node_of(self, name: str) -> None:
        """SIGKILL to a raylet that runs a process of that name, never to the head's: what a lost machine comes to."""
        self._raylet_of(name).kill()

    def drain_node_of(self, name: str, *, seconds: int) -> None:
        """Says that such a node is taken away after so many seconds, as a cloud's notice does."""
        (node,) = [word.partition("=")[2] for word in self._raylet_of(name).cmdline() if word.startswith("--node_id=")]
        words = ["drain-node", "--address", self.address, "--node-id", node, "--reason-message", "spot"]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", str(seconds)]
        subprocess.run([BIN / "ray", *words], check=True, timeout=120)

    def _raylet_of(self, name: str) -> psutil.Process:
        for node in self.nodes[1:]:
            if node.poll() is None:
                for raylet in psutil.Process(node.pid).children(recursive=True):
                    if raylet.name() == "raylet" and any(name in _title(process) for process in raylet.children()):
                        return raylet
        raise RuntimeError(f"no node but perhaps the head runs {name}")


@contextmanager
def start_cluster() -> Iterator[RayCluster]:
    """A head, a node with a GPU and one without."""
    gcs, dashboard = (_free_port() for _ in range(2))
    address = f"127.0.0.1:{gcs}"
    # The head only leads, as Ray advises: what works lies on nodes that may be lost.
    head = ["--head", "--port", gcs, "--dashboard-port", dashboard, "--num-cpus", 0]
    node = ["--address", address, "--num-cpus", 8]
    # Ray Train asks this server whether its controller still lives; left to find one, it may ask another Ray's.
    environment = os.environ | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", GPU_DEVICE: "cpu"}
    nodes: list[subprocess.Popen[bytes]] = []

    def start(options: list[object], *, number: int) -> None:
        # Left to themselves, the agents of all nodes on the machine take the same port, and one gets it. Jobs go to
        # the head's agent, and Ray gives it ten seconds to come: too few on a busy machine.
        agent = _free_port()
        words = [BIN / "ray", "start", "--block", "--object-store-memory", 150 * 2**20, *options]
        command = [str(word) for word in [*words, "--dashboard-agent-listen-port", agent]]
        nodes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment))
        _wait_for(dashboard)
        _wait_for(agent)
        _wait_for_nodes(address, number)

    try:
        # The GPU is one of Ray's logical resources: networks go where it is, and compute on the CPU.
        for number, options in enumerate((head, [*node, "--num-gpus", 1], node), start=1):
            start(options, number=number)
        yield RayCluster(address, f"http://127.0.0.1:{dashboard}", nodes, lambda: start(node, number=1))
    finally:
        for process in nodes:
            process.terminate()
        for process in nodes:
            process.wait(timeout=60)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended meanwhile
        return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(1800):  # longer than it takes on a busy machine
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def _wait_for_nodes(address: str, number: int) -> None:
    command = [str(BIN / "ray"), "status", "--address", address]
    for _ in range(20):
        status = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        active = status.partition("Active:")[2].partition("Pending:")[0]
        if active.count("node_") >= number:
            return
        time.sleep(1)
    raise TimeoutError(f"{number} nodes didn't come; the last status:\n{status}")
