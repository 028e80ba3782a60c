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
from raypipe.cluster.health import NODE_ID
from raypipe.cluster.mounts import readable
from raypipe.faults import blame, in_words

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

    @contextmanager
    def starting(self, *, job: str, pool: str) -> Iterator[None]:
        """Reports whether this process gets through its set-up, within.

        Raises:
            SickNode: if nothing is to be computed here; or the set-up failed as it fails nowhere else.
        """
        self.oversee()
        call = _new_call(job, pool, block=_given())
        self._admit(call, self._ask("start", call))
        try:
            yield
        except Exception as error:
            if blame(error) == "row" and self._ask("refused", call, in_words(error)):
                raise SickNode(f"{self.node()}: {in_words(error)}") from error
            self.watch.started.remote(call, passed=False)
            raise
        finally:
            _open_calls.pop(call.number, None)
        self.watch.started.remote(call, passed=True)

    def begin(self, *, job: str, pool: str, block: str, rows: list[str]) -> tuple[Call, Orders]:
        """Says that this process begins with a block.

        Raises:
            SickNode: if nothing is to be computed here.
        """
        self.oversee()
        call = _new_call(job, pool, block=block)
        orders: Orders = self._ask("begin", call, rows)
        self._admit(call, orders)
        return call, orders

    def _admit(self, call: Call, orders: Orders) -> None:
        if orders.sick is not None:
            raise SickNode(f"{self.node()}: {orders.sick}")
        _open_calls[call.number] = call

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

    def others(self) -> list[str]:
        """Ids of the other nodes that aren't sick and compute."""
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]  # type: ignore[no-untyped-call]
        return sorted({node["NodeID"] for node in nodes} - {_node(), *self.sick()})

    def readable_elsewhere(self, paths: list[str], *, ask_all: bool) -> list[str]:
        """Those of some local files that can be read on the driver's node; or, where none can, on some other one.

        Args:
            paths: that can't be read here.
            ask_all: asks another node, for which a process may have to be started there.
        """
        import ray

        found: list[str] = self._ask("readable", paths)
        if found or not ask_all or not (others := self.others()):
            return found
        there = {"num_cpus": 0, "max_retries": 0, "label_selector": {NODE_ID: f"in({','.join(others)})"}}
        try:
            return list(
                _asking.submit(ray.get, ray.remote(readable).options(**there).remote(paths), timeout=60).result()
            )
        except ray.exceptions.RayError:  # nobody has seen them
            return []

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


def _new_call(job: str, pool: str, *, block: str) -> Call:
    return Call(number=uuid4().hex, job=job, pool=pool, worker=_worker(), node=_node(), place=_place(), block=block)


def _given() -> str:
    """What Ray has given this process to do: the actor, or else the task; its id is the same in each try."""
    import ray

    context = ray.get_runtime_context()
    return str(context.get_actor_id() or context.get_task_id())


@cache
def _worker() -> str:
    import ray

    return str(ray.get_runtime_context().get_worker_id())


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
        logger.warning("a process on %s made no progress for %g s in %s, and ends", self.guard.node(), timeout, where)
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
