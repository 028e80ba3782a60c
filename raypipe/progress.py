"""Whether the work in this process gets on: stages say so with each row, pass and tile.

Time in which a process waits for storage, or for its turn, isn't counted: nothing is wrong with a row then.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
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
    """Counts the time within."""
    with _counted(1):
        yield


@contextmanager
def waiting() -> Iterator[None]:
    """Doesn't count the time within."""
    with _counted(-1):
        yield


@contextmanager
def _counted(change: int) -> Iterator[None]:
    global _working
    tick()
    with _lock:
        _working += change
    try:
        yield
    finally:
        tick()
        with _lock:
            _working -= change
