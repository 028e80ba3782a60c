"""What a worker process tells the run's watch, and the thread that ends the process when it gets on no more."""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

from raypipe import progress
from raypipe.cluster.calls import Call, Orders, Outcome, Verdict

logger = logging.getLogger(__name__)

CALLS = 4
"""Calls that a process is at work on, at most, and asks for at the same time."""

SETUP = "setup"
"""What a process that loads its networks works on."""

_SETUP_TIMEOUT = 600.0
"""Seconds that it may take, at least."""

_GRACE = 15.0
"""Seconds after which a process is ended from outside of Python, whose lock may be held by what is stuck."""

_STDERR = 2
"""File descriptor of what Ray writes to a process's log."""

_REPORT_TIMEOUT = 10.0
"""Seconds that a process which is about to end itself gives its report."""


class SickNode(RuntimeError):  # noqa: N818 - says what is wrong
    """Rows can't be computed on this node, for a reason that lies in the node."""


@dataclass(frozen=True)
class Guard:
    """The way from a worker to the run's watch."""

    watch: Any
    """Handle of the actor."""
    row_timeout: float
    """Seconds without progress after which a process is ended."""

    def oversee(self) -> None:
        """Ends this process from now on where it gets on no more."""
        _overseer(self).start()

    def begin(self, *, job: str, pool: str, block: str, rows: list[str]) -> tuple[Call, Orders]:
        """Says that this process begins with a block.

        Raises:
            SickNode: if nothing is to be computed here.
        """
        self.oversee()
        call = Call(number=uuid4().hex, job=job, pool=pool, node=_node(), place=_place(), block=block)
        orders: Orders = self._ask("begin", call, rows)
        if orders.sick is not None:
            raise SickNode(f"{self.node()}: {orders.sick}")
        _open_calls[call.number] = call
        return call, orders

    def alone(self, call: Call, row: str | None) -> None:
        """Says that the process works on one row alone from now on; None: no more."""
        self._ask("alone", call, row)

    def fault(self, call: Call, reason: str, *, of_device: bool) -> Verdict:
        """Says that the call has failed for a reason that lies in this node."""
        _open_calls.pop(call.number, None)
        verdict: Verdict = self._ask("fault", call, reason, of_device=of_device)
        return verdict

    def end(self, call: Call, outcome: Outcome) -> None:
        """Says that the call has ended; nothing waits for it to be heard."""
        _open_calls.pop(call.number, None)
        self.watch.end.remote(call, outcome)

    def settled(self, call: Call) -> None:
        """Says that a block is done that another process has computed."""
        self.watch.settled.remote(call)

    def convicts(self, call: Call, node: str) -> bool:
        """Whether rows that failed on a node, too, are at fault."""
        return bool(self._ask("convicts", call, node))

    def sick(self) -> dict[str, str]:
        """The nodes that are sick."""
        found: dict[str, str] = self._ask("sick")
        return found

    def node(self) -> str:
        """This node in words."""
        import ray

        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return f"node {address} ({_node()[:12]})"

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        import ray

        answer = getattr(self.watch, method).remote(*arguments, **named)
        # Not in a task's own thread: Ray would give the task's CPUs away while it waits there.
        return _asking.submit(ray.get, answer).result()


_asking = ThreadPoolExecutor(CALLS, thread_name_prefix="watch")

_open_calls: dict[str, Call] = {}
"""That this process is at work on."""


@cache
def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@cache
def _place() -> str:
    import ray

    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return "/".join([_node(), *gpus])


@cache
def _overseer(guard: Guard) -> "_Overseer":
    return _Overseer(guard)


class _Overseer:
    """A thread that looks whether its process gets on."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts it, unless it is at work."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self.thread.start()

    def _run(self) -> None:
        timeout = self.guard.row_timeout
        nap = threading.Event()
        while not nap.wait(min(1.0, timeout / 4)):
            # As long as this thread gets its turns, that moment never comes.
            faulthandler.dump_traceback_later(timeout + _GRACE, exit=True, file=_STDERR)
            limit = max(timeout, _SETUP_TIMEOUT) if progress.where() == SETUP else timeout
            if progress.seconds_stalled() >= limit:
                self._end(limit)

    def _end(self, timeout: float) -> None:
        import ray

        where = progress.where()
        print(f"raypipe: no progress for {timeout:g} s in {where}; this process ends. Its stacks:", file=sys.stderr)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        sys.stderr.flush()
        reports = [self.guard.watch.hung.remote(call, where, timeout) for call in list(_open_calls.values())]
        if reports:
            ray.wait(reports, num_returns=len(reports), timeout=_REPORT_TIMEOUT)
        os._exit(1)


class Gate:
    """Lets calls of a process run at the same time, or one of them alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[None]:
        """Waits until the call may run."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not (alone and self._inside))
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()
