"""The lines that a person sees, and below them, in a terminal, one bar.

Where the terminal is gone, nobody sees them, and the command goes on.
"""

import os
import sys
from contextlib import suppress
from threading import RLock
from typing import Any, TextIO

from tqdm import tqdm

_BAR = "{desc} {bar:20}"


class Console:
    """Writes whole lines, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lock = RLock()
        self._bar: Any = None

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal, in which a bar can move."""
        return self.stream.isatty()

    def line(self, text: str) -> None:
        """Shows a text, above the bar if there is one."""
        with self._lock, suppress(OSError):
            if self._bar is not None:
                self._bar.clear()
            print(text, file=self.stream, flush=True)
            if self._bar is not None:
                self._bar.refresh()

    def bar(self, text: str, *, done: int, total: int | None) -> None:
        """Shows how far a step is, in place of what was shown before; a terminal's line is cut where it is too long."""
        with self._lock, suppress(OSError):
            if self._bar is None:
                self._bar = tqdm(file=self.stream, bar_format=_BAR, leave=False, dynamic_ncols=True)
            self._bar.n, self._bar.total = done, total
            self._bar.set_description_str(text, refresh=True)

    def no_bar(self) -> None:
        """Takes the bar away."""
        with self._lock, suppress(OSError):
            if self._bar is not None:
                self._bar.close()
                self._bar = None


def console_of_process() -> Console:
    """The console on the standard error of now, whatever that is redirected to later."""
    with suppress(OSError):  # without a file descriptor, as in a test
        copy = os.dup(sys.stderr.fileno())
        return Console(open(copy, "w", encoding=sys.stderr.encoding, errors="backslashreplace"))  # noqa: PTH123
    return Console(sys.stderr)
