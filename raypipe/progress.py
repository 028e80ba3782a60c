"""Whether the work in this process gets on: stages say so with each row, pass and tile.

Time in which a process waits for storage, or for its turn, isn't counted: nothing is wrong with a row then.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local

_lock = Lock()
_here = local()
"""`working`: whether this thread's time is counted."""
_working = 0
_last = time.monotonic()
_where = ""


def tick(where: str | None = None) -> None:
    """Says that the work gets on.

    Args:
        where: what is worked on from now on, such as a stage's name; None says nothing new of that.
    """
    global _last, _where
    _last = time.monotonic()
    if where is not None:
        _where = where


def where() -> str:
    """What was worked on last."""
    return _where


def seconds_stalled() -> float:
    """Seconds since the last progress; 0 while nothing is at work."""
    return time.monotonic() - _last if _working > 0 else 0.0


@contextmanager
def working() -> Iterator[None]:
    """Counts this thread's time within."""
    with _counted(is_working=True):
        yield


@contextmanager
def waiting() -> Iterator[None]:
    """Doesn't count this thread's time within, if it was counted."""
    with _counted(is_working=False):
        yield


@contextmanager
def _counted(*, is_working: bool) -> Iterator[None]:
    before = getattr(_here, "working", False)
    _set(is_working)
    try:
        yield
    finally:
        _set(before)


def _set(is_working: bool) -> None:
    global _working
    tick()
    change = is_working - getattr(_here, "working", False)
    _here.working = is_working
    with _lock:
        _working += change
