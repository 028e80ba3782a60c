"""How far the step is that a command is at: a bar in a terminal, elsewhere a line now and then, and one at its end."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from raypipe.screen.console import Console
from raypipe.words import counted

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0
"""Without a terminal."""

_SECONDS_BETWEEN_BARS = 0.2

_SLOW_START = 5.0
"""Seconds after which the first count is shown at once: someone waits for it."""


class Step:
    """The count of one step."""

    def __init__(self, name: str, *, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins a step.

        Args:
            name: as of the plan.
            unit: what is counted, such as `images`.
            clock: seconds.
        """
        self.name, self.unit, self.clock = name, unit, clock
        self.done, self.total, self.quarantined = 0, 0, 0
        self.note = ""
        """What its last line says beside the count."""
        self.is_needed = True
        """Whether something had to be done."""
        self.started = self.shown = clock()
        self._first: tuple[float, int] | None = None
        """When something was done first, and how much: until then processes start."""

    def update(self, done: int, total: int, *, quarantined: int = 0) -> None:
        """Says how much is done; shows it now and then."""
        with _lock:
            now, begins = self.clock(), self._first is None and done > 0
            if begins:
                self._first = now, done
            self.done, self.total, self.quarantined = done, total, quarantined
            live = _console is not None and _console.is_live
            since = now - self.shown
            if since >= (_SECONDS_BETWEEN_BARS if live else SECONDS_BETWEEN_LINES) or (begins and since >= _SLOW_START):
                self.show()

    def show(self) -> None:
        """Shows how far it is."""
        self.shown = self.clock()
        if _console is not None and _console.is_live:
            _console.bar(self.text(), done=self.done, total=self.total or None)
        else:
            logger.info("%s", self.text())

    def text(self) -> str:
        """How far it is, in words."""
        parts = [f"{_heading(self.name)}: {self._count()}", *self._pace()]
        return ", ".join(parts)

    def last_text(self) -> str:
        """What it came to."""
        parts = [f"{_heading(self.name)}: {self._count()}", self.note, time_text(self.clock() - self.started)]
        return ", ".join(part for part in parts if part)

    def _count(self) -> str:
        if not self.total:
            return "starting"
        quarantined = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        return f"{self.done:,} of {counted(self.total, self.unit)}{quarantined}"

    def _pace(self) -> Iterator[str]:
        if self._first is None:
            return
        (when, before), now = self._first, self.clock()
        if self.done > before and now > when:
            rate = (self.done - before) / (now - when)
            yield f"{rate:.1f}/s"
            yield f"{time_text((self.total - self.done) / rate)} left"


_lock = RLock()
_console: Console | None = None
"""Where bars are shown; None logs lines alone."""
_names: tuple[str, ...] = ()
_ended: set[str] = set()
"""Steps that have come to their end: those that need them ask again."""
_current: Step | None = None
_at_ends: list[Callable[[], None]] = []


def show_on(console: Console | None) -> None:
    """Shows the steps of this process there from now on."""
    global _console
    _console = console
    plan_steps(())


def plan_steps(names: Sequence[str]) -> None:
    """Says which steps the command takes, in their order, so that each has a number."""
    global _names
    _names = tuple(names)
    _ended.clear()


def at_ends(function: Callable[[], None] | None) -> None:
    """Calls a function at the end of each step; None calls none any more."""
    _at_ends[:] = [] if function is None else [function]


@contextmanager
def step(name: str, *, unit: str = "images") -> Iterator[Step]:
    """The step within which something is done; its last line is shown where it comes to its end."""
    global _current
    before, _current = _current, Step(name, unit=unit)
    this = _current
    try:
        if _console is not None and _console.is_live:
            this.show()
        yield this
    finally:
        _current = before
        if _console is not None:
            _console.no_bar()
    if this.is_needed or name not in _ended:
        _end(name, this.last_text())


def current() -> Step | None:
    """The step that is at work."""
    return _current


def is_there(name: str) -> None:
    """Says that there is nothing to be done for a step: what it makes was made before."""
    if name not in _ended:
        _end(name, f"{_heading(name)}: made before")


def _end(name: str, text: str) -> None:
    logger.info("%s", text)
    _ended.add(name)
    at_end()


def at_end() -> None:
    """Calls what is to be called at the end of each step."""
    for function in _at_ends:
        function()


def time_text(seconds: float) -> str:
    """Some time, in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _heading(name: str) -> str:
    return f"step {_names.index(name) + 1} of {len(_names)}, {name}" if name in _names else name
