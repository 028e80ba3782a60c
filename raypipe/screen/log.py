"""Sends what isn't to be shown into a file: standard error, and what Ray's threads print of its workers.

A library writes where `sys.stderr` leads, one in C++ to the file descriptor 2. Results are what the main thread
prints.
"""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

from raypipe.screen.console import Console
from raypipe.screen.step import current
from raypipe.screen.worker import Counted, plain, read

_STDERR = 2


_before_ray: list[Callable[[], None]] = []


def before_ray(function: Callable[[], None] | None) -> None:
    """Says what is to be called before Ray is connected to, which then begins to talk; None: nothing any more."""
    _before_ray[:] = [] if function is None else [function]


def ray_begins() -> None:
    """Says that Ray is about to be connected to."""
    for function in _before_ray:
        function()


class Log:
    """The file of one command, of whole lines."""

    def __init__(self, path: Path, console: Console, *, verbose: bool) -> None:
        """Opens the file; until `begin`, what others write doesn't get there.

        Args:
            path: whose folder is there.
            console: shows what is raypipe's own.
            verbose: it shows all else, too.
        """
        self.path, self.console, self.verbose = path, console, verbose
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._is_broken = False

    def begin(self) -> None:
        """Takes standard error for the rest of the process, and what other threads than the main one print."""
        sys.stdout.flush()
        sys.stderr.flush()
        if not self.verbose and _is_descriptor(sys.stderr, _STDERR):
            os.dup2(self._file.fileno(), _STDERR)
        sys.stdout = cast("TextIO", Lines(self.foreign, main=sys.stdout))
        sys.stderr = cast("TextIO", Lines(self.foreign))

    def write(self, text: str) -> None:
        """Adds lines; whoever writes a log must not fail because it can't be written."""
        if self._is_broken:
            return
        try:
            self._file.write(text + "\n")
        except OSError as error:
            self._is_broken = True
            self.console.line(f"the log {self.path} can't be written any more: {error}")

    def foreign(self, line: str) -> None:
        """Takes a line that someone else has printed; a worker of ours may have marked it."""
        marked = read(line)
        if marked is None:
            self.write(plain(line))
            if self.verbose:
                self.console.line(line)
            return
        before, found = marked
        if isinstance(found, Counted):
            step = current()
            if step is not None and step.name == found.step:
                step.update(found.done, found.total)
            return
        self.write(f"{before}{logging.getLevelName(found.level)} {found.text}")
        if self.verbose or found.level >= logging.WARNING:
            self.console.line(found.text)


class Lines(io.TextIOBase):
    """A text stream that hands on whole lines; each thread has an unfinished one of its own."""

    def __init__(self, take: Callable[[str], None], *, main: TextIO | None = None) -> None:
        """Makes a stream.

        Args:
            take: is given each line.
            main: gets what the main thread writes instead; None makes no difference between threads.
        """
        self._take, self._main = take, main
        self._here = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override] # an attribute there
        """Of what is written."""
        return "utf-8" if self._main is None else self._main.encoding

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether the main thread's results are shown in a terminal."""
        return self._main is not None and self._main.isatty()

    def fileno(self) -> int:
        """The file descriptor below, which faults are written to."""
        return _STDERR if self._main is None else self._main.fileno()

    def write(self, text: str) -> int:
        """Takes text."""
        if self._main is not None and threading.current_thread() is threading.main_thread():
            return self._main.write(text)
        *lines, self._here.rest = (getattr(self._here, "rest", "") + text).split("\n")
        for line in lines:
            self._take(line.rstrip("\r"))
        return len(text)

    def flush(self) -> None:
        """Flushes the main thread's results."""
        if self._main is not None:
            self._main.flush()


class Handler(logging.Handler):
    """Shows raypipe's own messages, and keeps all of them in the log, once there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.log: Log | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a message, or not."""
        own = record.name.partition(".")[0] == "raypipe"
        if record.levelno >= logging.INFO and (own or self.log is None or self.log.verbose):
            self.console.line(record.getMessage())
        if self.log is not None:
            self.log.write(self.format(record))


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except OSError:  # it has none, as in a test
        return False
