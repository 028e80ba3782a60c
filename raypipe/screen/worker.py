"""What a worker process says to the person at the driver: marked lines among those that Ray brings there anyway."""

import json
import logging
import re
import sys
import time
from dataclasses import dataclass

MARK = "__raypipe__"
"""Before the JSON of a marked line."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REPEATED = re.compile(r" \[repeated (\d+)x across cluster\]")
_SECONDS_BETWEEN_COUNTS = 1.0


@dataclass(frozen=True)
class Said:
    """A message of a worker."""

    text: str
    level: int


@dataclass(frozen=True)
class Counted:
    """How far a worker is in a step."""

    step: str
    done: int
    total: int


class _Marked(logging.Handler):
    """Writes messages as marked lines."""

    def emit(self, record: logging.LogRecord) -> None:
        print(MARK + json.dumps({"text": record.getMessage(), "level": record.levelno}), file=sys.stderr, flush=True)


def in_worker() -> None:
    """Marks raypipe's own messages in this process from now on."""
    ours = logging.getLogger("raypipe")
    if not any(isinstance(handler, _Marked) for handler in ours.handlers):
        ours.addHandler(_Marked(logging.INFO))
        ours.setLevel(logging.INFO)


class Counter:
    """Tells the driver how far a worker is, once a second at most."""

    def __init__(self, step: str, total: int) -> None:
        self.step, self.total = step, total
        self._told = float("-inf")

    def tell(self, done: int) -> None:
        """Says how much is done."""
        now = time.monotonic()
        if done < self.total and now - self._told < _SECONDS_BETWEEN_COUNTS:
            return
        self._told = now
        print(MARK + json.dumps({"step": self.step, "done": done, "total": self.total}), flush=True)


def plain(text: str) -> str:
    """A text without colours."""
    return _COLOURS.sub("", text)


def read(line: str) -> tuple[str, Said | Counted] | None:
    """What a marked line says, after what Ray puts before it, such as `(RayTrainWorker pid=7) `; None if it isn't one.

    Where several workers say the same, Ray brings it once and adds how often.
    """
    before, mark, rest = plain(line).partition(MARK)
    if not mark:
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(rest)
        if "step" in found:
            return before, Counted(**found)
        repeated = _REPEATED.match(rest, end)  # the first of these goes on about Ray's options
        more = f" (and {repeated[1]} times more)" if repeated else ""
        return before, Said(text=found["text"] + more, level=found["level"])
    except (ValueError, TypeError, KeyError):  # torn, or another program's
        return None
