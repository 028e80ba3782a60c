"""What Ctrl-C and SIGTERM do while a process starts Ray or connects to it."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keeps what the process does on SIGTERM, if that isn't to end at once.

    `ray.init` puts a handler of its own in that place before it starts anything: it ends the process without a word, in
    the midst of the start and afterwards.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    import ray._private.utils as of_ray

    # Not public: a Ray without it is left with its handler while it starts.
    set_handler: Any = getattr(of_ray, "set_sigterm_handler", None)
    of_ray.set_sigterm_handler = lambda _handler: None
    try:
        yield
    finally:
        of_ray.set_sigterm_handler = set_handler
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_wait() -> Iterator[Callable[[], bool]]:
    """Lets a first Ctrl-C or SIGTERM wait for the end of the block, in which processes are forked.

    In the midst of a fork it would leave a lock of `logging` held, for which all would wait for ever. What the process
    does on the signal it does at once, as far as that is to say something; what it raises is raised at the end, and a
    line says so. A second signal doesn't wait.

    Yields:
        Whether one waits.
    """
    waiting: BaseException | None = None
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        handle = before[signal.Signals(number)]
        assert callable(handle)
        if waiting is not None:
            handle(number, frame)
            return
        try:
            handle(number, frame)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it waits
            waiting = error
            with suppress(RuntimeError):  # a line was being written
                logger.info("stopping, as soon as Ray has started or is down again")

    replaced = [number for number, handler in before.items() if callable(handler)]
    if threading.current_thread() is not threading.main_thread():
        replaced = []
    for number in replaced:
        signal.signal(number, wait)
    try:
        yield lambda: waiting is not None
    except Exception as error:
        if waiting is not None:
            raise waiting from error
        raise
    finally:
        for number in replaced:
            signal.signal(number, before[number])
    if waiting is not None:
        raise waiting
