"""Connects to a Ray cluster, or starts a local Ray."""

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raypipe.cluster.head import watch_head
from raypipe.cluster.interrupts import interrupts_wait, own_sigterm
from raypipe.cluster.machines import local_cpus
from raypipe.cluster.working_directory import replaced
from raypipe.config import Cluster
from raypipe.messages.chains import words_of
from raypipe.screen.log import ray_begins

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""How long a cluster is waited for that doesn't answer at its address; Ray itself tries for minutes."""

KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "60000", "RAY_grpc_client_keepalive_timeout_ms": "20000"}
"""Environment with which a process that waits for another one asks each minute whether it is still there, which Ray's
servers bear, and waits 20 seconds for the answer; by itself Ray asks after 5 minutes and waits 2. Ray's own check of
nodes doesn't end such a wait: what was on a host whose link is cut came back to nobody (benchmarks/hosts.md)."""

STARTING = {
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
}
"""Environment with which the processes of a local Ray wait for one another while they start, longer than by themselves:
on a machine that is busy, or whose disk is slow, they take minutes the first time."""

PAUSE_SECONDS = 15.0
"""Until a local Ray that did not start in time is tried again, once: its own wait, of 30 seconds, can't be changed."""

_SOCKET_PATH = 107
"""Bytes that Linux allows for the path of a socket."""

_SOCKET = f"/session_2026-12-31_23-59-59_123456_{2**22}/sockets/plasma_store"
"""The longest name that Ray gives a socket in its folder."""

_SHORT = "/tmp/ray"  # noqa: S108 - Ray's own default


class NoRay(ConnectionError):  # noqa: N818 - says what is wrong
    """Ray can't be started, or there is none at the address: the message says why, and the way out."""


def cluster_address(cluster: Cluster) -> str | None:
    """Address of the cluster to run on; None for a local Ray."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def is_connected() -> bool:
    """Whether this process is connected to a Ray, without importing it for the question."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def connect(cluster: Cluster) -> None:
    """Connects to a Ray cluster, or starts a local one, unless this process has one already.

    Raises:
        NoRay: there is none at the address, or it can't be started.
    """
    ray_begins()
    for name, value in (KEEPALIVE | STARTING).items():
        os.environ.setdefault(name, value)  # Ray reads them as it is imported
    if is_connected():
        return
    address = cluster_address(cluster)
    logger.info("%s", f"connecting to Ray at {address[:200]}" if address else "starting Ray on this machine")
    import ray  # takes seconds

    if address:
        way_out = "Start it, mend cluster.address or RAY_ADDRESS, or leave both out for a Ray of this machine alone"
        with own_sigterm(), _explained(f"no Ray cluster answers at {address[:200]}", way_out):
            _wait_for(address)
            with replaced():
                ray.init(address=address, log_to_driver=True)
        watch_head()
        return
    # Workers inherit this. Threads that wait by spinning would take the cores from those that work: training was seen
    # three times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # No node of a local Ray is taken away with notice, so no process needs to watch for one beside each training.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    folder = short_folder()
    way_out = (
        f"Look for free memory, for room on the disk of {folder} and at the logs in it; wait until the machine is less "
        "busy, end what you run beside it, or lower cluster.object_store_memory. Then give the command again"
    )
    failing = _explained("a Ray of this machine can't be started", way_out)
    with own_sigterm(), interrupts_wait() as is_interrupted, failing, _temporary_files_beside(folder):
        try:
            _start(cluster, folder)
        except Exception as error:
            if is_interrupted() or not _may_pass(error):
                raise
            logger.warning("Ray doesn't start in time (%s), which is tried once more", words_of(error))
            ray.shutdown()
            time.sleep(PAUSE_SECONDS)
            if is_interrupted():
                raise
            _start(cluster, folder)


def _start(cluster: Cluster, folder: str) -> None:
    import ray

    # Ray Train asks the dashboard's server once a second whether the training still lives. Without one it complains as
    # often; and left to find one, it was seen to ask that of another Ray on the machine and to end the training.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    ray.init(
        address="local",
        num_cpus=cluster.num_cpus or local_cpus(),
        object_store_memory=cluster.object_store_memory,
        include_dashboard=True,
        dashboard_host="127.0.0.1",  # whoever reaches it can run code
        dashboard_port=port,
        log_to_driver=True,
        logging_level=logging.WARNING,
        _temp_dir=folder,
    )


def _may_pass(error: Exception) -> bool:
    """Whether a start may have failed for want of time, and not for what it was given or has found on the disk."""
    return not isinstance(error, ValueError | OSError) or isinstance(error, ConnectionError | TimeoutError)


@contextmanager
def _temporary_files_beside(folder: str) -> Iterator[None]:
    """Starts processes whose temporary files lie where Ray's do, if that isn't TMPDIR: they make sockets there, too."""
    before = os.environ.get("TMPDIR")
    if before is None or folder != _SHORT:
        yield
        return
    os.environ["TMPDIR"] = os.path.dirname(_SHORT)  # noqa: PTH120
    try:
        yield
    finally:
        os.environ["TMPDIR"] = before


def short_folder() -> str:
    """The folder of a local Ray's files: Ray's own choice, unless the paths of sockets in it get too long.

    Raises:
        NoRay: they do, and there is no other folder.
    """
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.path.join(os.path.abspath(os.environ.get(name, "/tmp")), "ray")  # noqa: PTH100, PTH118, S108
    if (too_long := len(os.fsencode(folder)) + len(_SOCKET) - _SOCKET_PATH) <= 0:
        return folder
    reason = f"{name} is {too_long} bytes too long for Ray: paths of its sockets have {_SOCKET_PATH} at most"
    if name == "RAY_TMPDIR" or not os.access("/tmp", os.W_OK | os.X_OK):  # noqa: S108
        raise NoRay(f"{reason} ({folder[:200]}). Set RAY_TMPDIR to a shorter folder")
    logger.warning(
        "%s, so they go to %s, as does what Ray spills; RAY_TMPDIR names another short folder", reason, _SHORT
    )
    return _SHORT


def _wait_for(address: str) -> None:
    """Waits until something listens at an address with a port; Ray finds out itself where others lead.

    Raises:
        OSError: nothing does within `ANSWER_SECONDS`.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if match is None:
        return
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            socket.create_connection((match[1], int(match[2])), timeout=ANSWER_SECONDS).close()
        except OSError:
            if time.monotonic() >= end:
                raise
            time.sleep(1)
        else:
            return


@contextmanager
def _explained(problem: str, way_out: str) -> Iterator[None]:
    """Makes one message of whatever Ray raises as it starts."""
    try:
        yield
    except Exception as error:
        raise NoRay(f"{problem} ({words_of(error)}). {way_out}") from error
