"""What a command shows, and its log in `<out>/logs/`, which has all else."""

import logging
import shutil
import signal
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from raypipe import storage
from raypipe import uri as uris
from raypipe.messages import message_of
from raypipe.messages.codes import INTERRUPTED
from raypipe.screen import step
from raypipe.screen.console import console_of_process
from raypipe.screen.log import Handler, Log, before_ray

logger = logging.getLogger(__name__)

LOGS = "logs"
"""Folder in `out`."""

_LIBRARIES = ("ray", "botocore", "aiobotocore")
"""Whose remarks would stand before a command's one message, while it has no log."""


class Screen:
    """The screen of one command."""

    def __init__(self) -> None:
        """Shows raypipe's own messages from now on."""
        self.console = console_of_process()
        self.handler = Handler(self.console)
        self.command = "raypipe"
        self.verbose = self.debug = False
        self.place: str | None = None
        """Of the log, once there is one."""
        self._is_temporary = self._is_copied = self._said_interrupted = False
        self._sigterm_before: Any = None
        """What the process does on SIGTERM elsewhere."""
        logging.basicConfig(level=logging.INFO, handlers=[self.handler])
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)
        step.show_on(self.console)
        before_ray(lambda: self.open_log(None))

    def open_log(self, out: str | None) -> None:
        """Sends into a log what Ray and the libraries say from now on.

        Args:
            out: URI of the run's folder; None keeps the log of a command that fails, among temporary files.
        """
        if self.place is not None:
            return
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{self.command}.log"
        if out is not None and uris.is_local(out):
            folder = Path(storage.filesystem(storage.join(out, LOGS))[1])
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix="raypipe-logs-"))
            self._is_temporary, self._is_copied = True, out is not None
        log = Log(folder / name, self.console, verbose=self.verbose)
        self.place = str(log.path) if out is None else storage.join(out, LOGS, name)
        self.handler.log = log
        logging.getLogger("raypipe").setLevel(logging.DEBUG)
        log.begin()
        if out is not None:
            logger.info("log: %s", self.place)
        step.at_ends(self.save)

    def save(self) -> None:
        """Copies the log to its place, if that isn't a disk of this machine."""
        log = self.handler.log
        if log is None or self.place is None or not self._is_copied:
            return
        try:
            storage.write_bytes_atomic(self.place, log.path.read_bytes())
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and a run needs no log
            self._keep(log)
            logger.warning("the log stays at %s, for it can't be copied: %r", self.place, error)

    def fail(self, error: BaseException) -> int:
        """Shows what is said of an error, and where there is more; returns the command's exit code."""
        message = message_of(error)
        if message.exit_code == INTERRUPTED:
            self._say_interrupted()
            return INTERRUPTED
        trace, log = "".join(traceback.format_exception(error)).rstrip(), self.handler.log
        if self.debug:
            self.console.line(trace)
        if log is not None:
            log.write(trace)
            if self._is_temporary and not self._is_copied:
                self._keep(log)
        text = f"error: {message.text}"
        self._say(typer.style(text, fg="red") if self.console.is_live else text)
        if log is not None:
            self.save()
            self.console.line(f"log: {self.place}")
        return message.exit_code

    def interrupt_on_sigterm(self) -> None:
        """Makes SIGTERM the interrupt that Ctrl-C is, until `close`; `ray job stop`, Kubernetes and `kill` send it.

        What is said of it is said at once: whoever sends it may soon end the process for good, Ray after 3 seconds.
        """

        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            with suppress(RuntimeError):  # a line was being written: it is said at the end, as it is of Ctrl-C
                self._say_interrupted()
            raise KeyboardInterrupt

        if threading.current_thread() is threading.main_thread():
            self._sigterm_before = signal.signal(signal.SIGTERM, interrupt)

    def close(self) -> None:
        """Ends the log."""
        if self._sigterm_before is not None:
            signal.signal(signal.SIGTERM, self._sigterm_before)
        self.save()
        before_ray(None)
        step.at_ends(None)
        step.show_on(None)
        logging.getLogger("raypipe").setLevel(logging.NOTSET)
        if self.handler.log is not None and self._is_temporary:
            shutil.rmtree(self.handler.log.path.parent, ignore_errors=True)

    def _say_interrupted(self) -> None:
        if not self._said_interrupted:
            self._say(message_of(KeyboardInterrupt()).text, interrupted=True)

    def _say(self, text: str, *, interrupted: bool = False) -> None:
        self.console.line(text)
        self._said_interrupted |= interrupted  # before the log, whose line the signal may have come in
        if self.handler.log is not None:
            self.handler.log.write(text)

    def _keep(self, log: Log) -> None:
        self.place, self._is_temporary, self._is_copied = str(log.path), False, False


the_screen: ContextVar[Screen | None] = ContextVar("the_screen", default=None)
"""Of the `raypipe` command; None where its functions are called by others."""


def open_log(out: str | None) -> None:
    """Opens the log of the `raypipe` command, as of `Screen.open_log`; where others call it, there is none."""
    if (screen := the_screen.get()) is not None:
        screen.open_log(out)
