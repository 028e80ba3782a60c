"""What tells a process from all others, on this machine and elsewhere, and whether it has ended."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process somewhere."""

    pid: int
    host: str
    """Name of its machine or container."""
    kernel: str | None
    """One start of one machine and, where it has containers, one of them; None where the system doesn't say."""
    start: str | None
    """When it started, in ticks since its machine did: process ids are used again."""

    def has_ended(self) -> bool:
        """True if the process has certainly ended, which can be said of those of this machine only."""
        if self.kernel is None or (self.host, self.kernel) != (socket.gethostname(), _kernel()):
            return False
        try:
            with suppress(PermissionError):  # it is there, and somebody else's
                os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return _start(self.pid) not in (None, self.start)


def this_process() -> Process:
    """The process that asks."""
    return Process(pid=os.getpid(), host=socket.gethostname(), kernel=_kernel(), start=_start(os.getpid()))


def _kernel() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """As in `Process.start`; "ended" for a process that only waits to be waited for; None where it can't be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "ended" if state in "ZX" else fields[18]
