"""Waits out the moments in which Ray replaces the working directory of a submitted job.

While the driver of such a job connects, Ray 2.60 deletes the directory and unpacks it again, once for each raylet of
the machine: it was seen to go as `ray.init` came back, and to be whole 0.1 to 0.2 seconds later. What raypipe imports
in between isn't found, and the process stays in a folder that is gone, from which no relative path leads anywhere.
"""

import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import raypipe

PACKAGE = Path(raypipe.__file__).parent
"""raypipe's own code, as this process imports it."""

UNPACKED = "working_dir_files"
"""Ray's folder of working directories."""

QUIET_SECONDS = 1.0
"""For so long it has to be whole."""
MOST_SECONDS = 60.0
"""For so long it is waited for."""


@contextmanager
def replaced() -> Iterator[None]:
    """Connects, within; ends when the working directory stays whole, and at once where raypipe isn't in one.

    Raises:
        FileNotFoundError: the working directory hasn't come back.
    """
    if UNPACKED not in PACKAGE.parts:
        yield
        return
    files, here = _files(), Path.cwd()
    yield
    now = time.monotonic()
    whole_since, deadline = now, now + MOST_SECONDS
    while now < min(whole_since + QUIET_SECONDS, deadline):
        time.sleep(0.01)
        is_whole = files <= _files()
        now = time.monotonic()
        if not is_whole:
            whole_since = now
    importlib.invalidate_caches()  # of folders without their files
    os.chdir(here)  # which was the folder that is gone


def _files() -> set[Path]:
    """The package's files; none while they are being deleted."""
    with suppress(OSError):
        return set(PACKAGE.rglob("*.py"))
    return set()
