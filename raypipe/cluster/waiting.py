"""Ends a wait for actors or workers that never start: a line says what is waited for, and after a while an error."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

FIRST_WORD = 60.0
"""Seconds of waiting until a line says so."""

_POLL = 5.0
"""Seconds between two looks at the cluster."""


class NothingStarted(RuntimeError):  # noqa: N818 - says what is wrong
    """The cluster ran nothing for `cluster.start_timeout`."""


@contextmanager
def watch_start(name: str, needs: str, *, timeout: float) -> Iterator[None]:
    """Watches a block that waits for the cluster, and ends it once nothing has run there for too long.

    What counts is that some CPU or GPU is in use, whoever uses it, or that a node has joined. Where another job holds
    the cluster, the wait goes on. A block that doesn't run in the main thread is watched but not ended.

    Args:
        name: what waits, such as `masks`.
        needs: the resources that it waits for.
        timeout: seconds in which nothing runs.

    Raises:
        NothingStarted: from within the block, with what was waited for and what the cluster has.
    """
    ended, expired = threading.Event(), threading.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()
    message = ""

    def watch() -> None:
        nonlocal message
        idle, said, nodes = 0.0, False, 0
        while not ended.wait(_POLL):
            busy, alive, state = _look()
            idle = 0.0 if busy or alive > nodes else idle + _POLL
            nodes = alive
            message = f"{name} waits for {needs}; nothing has run for {idle:.0f} s; {state}"
            if idle >= FIRST_WORD and not said:
                logger.warning("%s", message)
            said = idle >= FIRST_WORD
            if idle >= timeout:
                if in_main_thread:
                    expired.set()
                    signal.pthread_kill(main_thread, signal.SIGUSR1)
                return

    def end(_signal: int, _frame: FrameType | None) -> None:
        if not ended.is_set():
            raise KeyboardInterrupt  # the only exception that interrupts `ray.get`

    main_thread = threading.main_thread().ident or 0
    before = signal.signal(signal.SIGUSR1, end) if in_main_thread else None
    watcher = threading.Thread(target=watch, name="watch_start", daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        if not expired.is_set():
            raise
        raise NothingStarted(
            f"{message}: add nodes, or lower what cluster.* asks for (`raypipe describe` prints the plan); "
            "cluster.start_timeout waits longer"
        ) from None
    finally:
        ended.set()
        watcher.join()  # afterwards no signal is on its way
        if in_main_thread:
            signal.signal(signal.SIGUSR1, before)


def _look() -> tuple[bool, int, str]:
    """Whether some CPU or GPU is in use; the alive nodes; both in words."""
    import ray

    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    alive = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    kinds = ("CPU", "GPU")
    busy = any(total.get(kind, 0) - free.get(kind, 0) > 1e-3 for kind in kinds)
    parts = ", ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}s" for kind in kinds)
    return busy, alive, f"free are {parts} on {alive} nodes"
