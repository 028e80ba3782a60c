"""Ends a driver whose cluster has lost its head, and says why: Ray ends it later, and doesn't say what is to be done.

The head leads the cluster by a server, Ray's GCS. No task can be started without it, and what waits for one waits.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from raypipe.screen.step import at_end

logger = logging.getLogger(__name__)

_RAYS_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Environment variable of the seconds after which Ray ends a process without a head. Where a cluster's head is started
again with its state (GCS fault tolerance) and takes longer, it is set to more."""

_RAYS_SECONDS = 60.0
"""Without it."""

_SHARE = 0.75
"""Of that time, until this process ends itself."""

_POLL = 3.0
"""Seconds between two looks, and that one may take."""

_SAVING = 10.0
"""Seconds that the command's log may take to get to its place."""


def watch_head() -> None:
    """Ends this process from now on where the head of its cluster is gone for too long."""
    import ray

    address = ray.get_runtime_context().gcs_address

    def is_connected() -> bool:
        return ray.is_initialized() and ray.get_runtime_context().gcs_address == address

    patience = _SHARE * float(os.environ.get(_RAYS_PATIENCE, _RAYS_SECONDS))
    follow = threading.Thread(
        target=_follow, args=(address, is_connected), kwargs={"patience": patience}, name="head", daemon=True
    )
    follow.start()


def _follow(
    address: str,
    is_connected: Callable[[], bool],
    *,
    patience: float,
    poll: float = _POLL,
    end: Callable[[str], None] | None = None,
) -> None:
    """Looks at a head until this process isn't connected to it any more.

    Args:
        address: of the head's server, HOST:PORT.
        is_connected: whether this process is still its cluster's.
        patience: seconds without an answer after which `end` is called.
        poll: seconds between two looks.
        end: is told why; None ends this process.
    """
    answered, warned = time.monotonic(), False
    nap = threading.Event()
    while not nap.wait(poll) and is_connected():
        if _answers(address, poll):
            answered, warned = time.monotonic(), False
            continue
        silent = time.monotonic() - answered
        if silent >= patience:
            (end or _end)(
                f"the head of the Ray cluster, {address}, has not answered for {silent:.0f} s: it was killed, or this "
                "machine is cut off from it. What is finished is kept in `out`. Start the cluster again, or connect to "
                "another one, and give the same command: it goes on where it was"
            )
            return
        if not warned and silent >= patience / 3:
            warned = True
            logger.warning(
                "the head of the Ray cluster, %s, has not answered for %.0f s; this run ends after %.0f s",
                *(address, silent, patience),
            )


def _answers(address: str, timeout: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout):
            return True
    except OSError:
        return False


def _end(reason: str) -> None:
    logger.error("error: %s", reason)
    saving = threading.Thread(target=at_end, name="save_log", daemon=True)
    saving.start()
    saving.join(_SAVING)  # storage may be away, too
    os._exit(1)  # the main thread waits in Ray, where no exception reaches it
