"""Finds out which rows kill or hang processes and which nodes are sick, from what the workers of a run report.

A row is convicted only of what happened while a process worked on it alone, and only where other rows got through: what
happens to every row of a node is the node's fault.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raypipe.cluster.calls import Call, Orders, Outcome, Verdict
from raypipe.cluster.endings import lacked_memory
from raypipe.cluster.mounts import readable
from raypipe.cluster.starts import Starts

DEATHS = 2
"""Of a process on the same rows, until each of them is tried alone; and then on the same row, until it is convicted."""

MOST_DEATHS = 4
"""On one row alone, until the node counts as sick because nothing else got through either; or the row is convicted,
where it is all that is left."""

LACKED_MEMORY = "Ray's memory monitor ended its process, for the node was short of memory"
"""Why a process has ended that Ray chose among those of its node, which may be none of its own fault."""

FAULTS = 3
"""Of a node, without anything getting through in between, until it counts as sick."""

SICK_AFTER = 20.0
"""Seconds from the first of them, at least: credentials of a machine that has just started may take a while."""

ALL_SICK_AFTER = 45.0
"""The same where no other node gets anything through either: then it is more likely that this passes."""


@dataclass
class _Open:
    """A call that has begun."""

    call: Call
    rows: tuple[str, ...]
    row: str | None = None
    """That it works on alone."""
    ended_by: str | None = None
    """What ended its process, where it said so itself."""
    hung: bool = False


@dataclass
class _Suspect:
    """A row or a block on which processes have died."""

    since: float
    calls: list[Call] = field(default_factory=list)
    """That failed."""
    last: float = 0.0
    """When the last of them did."""


@dataclass
class _Health:
    """What a pool has seen on a node."""

    passed: float = float("-inf")
    """When something got through last."""
    faults: list["_Fault"] = field(default_factory=list)
    """Since then."""


@dataclass(frozen=True)
class _Fault:
    at: float
    block: str


class Watch:
    """The count of one driver's streams. Nothing in it must survive: what is forgotten is found out once more."""

    def __init__(
        self,
        alive: Callable[[], set[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        lacked_memory: Callable[[str], bool] = lacked_memory,
    ) -> None:
        """Starts with nothing known.

        Args:
            alive: ids of the nodes that are there; None asks Ray.
            clock: seconds.
            lacked_memory: whether Ray has ended a process, by its id, because its node was short of memory.
        """
        self._alive, self._clock, self._lacked_memory = alive or _alive_nodes, clock, lacked_memory
        self._starts = Starts()
        self._open: dict[tuple[str, str], _Open] = {}
        self._blocks: dict[tuple[str, str], _Suspect] = {}
        self._faulty: dict[tuple[str, str], _Suspect] = {}
        self._rows: dict[tuple[str, str], _Suspect] = {}
        self._careful: set[tuple[str, str]] = set()
        self._convicted: dict[str, dict[str, str]] = defaultdict(dict)
        self._health: dict[tuple[str, str], _Health] = defaultdict(_Health)
        self._sick: dict[str, str] = {}

    def start(self, call: Call) -> Orders:
        """Says that a process begins to be set up for a pool; returns whether it may."""
        before = self._starts.begin(call)
        if before is not None:
            dead, said = before
            if dead.node in self._alive():
                reason = self._starts.died(dead, said or self._ending(dead))
                if reason is not None:
                    self._sick.setdefault(dead.node, reason)
        sick = self._sick.get(call.node)
        if sick is not None:
            self._starts.end(call, passed=False)
        return Orders(sick=sick)

    def started(self, call: Call, *, passed: bool) -> None:
        """Says that it is set up, or that what failed may pass when it is tried with the first rows."""
        self._starts.end(call, passed=passed)

    def refused(self, call: Call, reason: str) -> bool:
        """Says that it can't be set up, which won't pass; returns whether that is the node's fault."""
        self._starts.end(call, passed=False)
        if self._starts.passed_elsewhere(call):
            self._sick.setdefault(call.node, f"{reason}, while {call.pool} was set up on other nodes")
        return call.node in self._sick

    def given_up(self) -> list[str]:
        """Why pools can't be set up on any node."""
        return self._starts.given_up()

    def begin(self, call: Call, rows: Sequence[str]) -> Orders:
        """Says that a process begins with a block; returns how.

        A block that is open already has been taken from a process that died.

        Args:
            call: who begins.
            rows: ids of the block's rows.
        """
        key = (call.job, call.block)
        before = self._open.pop(key, None)
        if before is not None and before.call.number != call.number:
            self._died(before)
        if call.node in self._sick:
            return Orders(sick=self._sick[call.node])
        self._open[key] = _Open(call, tuple(rows))
        convicted = self._convicted.get(call.pool, {})
        suspects = [row for row in rows if (call.pool, row) in self._rows and row not in convicted]
        first = {row for row in suspects if self._passes_since(call, self._rows[call.pool, row].since)}
        return Orders(
            alone=key in self._careful or bool(suspects),
            first=frozenset(first),
            last=frozenset(set(suspects) - first),
            convicted={row: convicted[row] for row in rows if row in convicted},
        )

    def alone(self, call: Call, row: str | None) -> None:
        """Says that a process works on one row alone, having got through the one before; None: on none any more."""
        if (found := self._found(call)) is not None:
            if found.row is not None:
                self._passed(call)
                self._rows.pop((call.pool, found.row), None)
            found.row = row

    def hung(self, call: Call, where: str, seconds: float) -> None:
        """Says that a process is about to end itself, for it gets on no more.

        Args:
            call: what it worked on.
            where: the stage.
            seconds: without progress.
        """
        reason = f"its process made no progress for {seconds:g} s in {where}"
        self._starts.hung(call, reason)
        if (found := self._found(call)) is not None:
            found.ended_by, found.hung = reason, True

    def fault(self, call: Call, reason: str, *, of_device: bool) -> Verdict:
        """Says that a call has failed for a reason that lies in the node; returns what is to be done.

        Args:
            call: which is closed by this.
            reason: in words.
            of_device: its process ends now, as it would after a crash.
        """
        found = self._open.pop((call.job, call.block), None)
        if found is not None and of_device:
            found.ended_by = reason
            self._died(found)
        else:
            self._blame_node(call, reason)
        if call.node in self._sick:
            return "sick"
        doubt = self._faulty.setdefault((call.job, call.block), _Suspect(self._clock()))
        doubt.calls.append(call)
        doubt.last = self._clock()
        return "elsewhere" if len(doubt.calls) >= FAULTS and self._passes_since(call, doubt.since) else "again"

    def convicts(self, call: Call, node: str) -> bool:
        """Whether rows that failed on a node as on the call's own are at fault: others got through there since."""
        doubt = self._faulty.get((call.job, call.block))
        return doubt is not None and any(
            seen.passed > doubt.last for (place, pool), seen in self._health.items()
            if pool == call.pool and place.startswith(node)
        )  # fmt: skip

    def settled(self, call: Call) -> None:
        """Says that a block whose call was closed by a fault is done all the same, by another process."""
        self._forget(call)

    def end(self, call: Call, outcome: Outcome) -> None:
        """Says that a call has ended, and how."""
        found = self._found(call)
        if found is None:
            return
        del self._open[call.job, call.block]
        if outcome == "failed":
            return
        self._forget(call)
        if outcome == "passed":
            self._passed(call)
            if self._rows:
                for row in found.rows:
                    self._rows.pop((call.pool, row), None)

    def readable(self, paths: Sequence[str]) -> list[str]:
        """Local files that can be read on the node of the watch, which is the driver's."""
        return readable(paths)

    def forgive(self) -> None:
        """Forgets all convictions: rows in quarantine are to be tried again."""
        self._convicted.clear()
        self._rows.clear()

    def sick(self) -> dict[str, str]:
        """Ids of the nodes that are sick, with the reason."""
        return dict(self._sick)

    def exclude(self, nodes: dict[str, str]) -> None:
        """Takes nodes for sick, with the reason."""
        self._sick |= nodes

    def _found(self, call: Call) -> _Open | None:
        found = self._open.get((call.job, call.block))
        return found if found is not None and found.call.number == call.number else None

    def _forget(self, call: Call) -> None:
        key = (call.job, call.block)
        self._faulty.pop(key, None)
        self._blocks.pop(key, None)
        self._careful.discard(key)

    def _passed(self, call: Call) -> None:
        health = self._health[call.place, call.pool]
        health.passed, health.faults = self._clock(), []

    def _passes_since(self, call: Call, since: float) -> bool:
        """Whether something got through the call's pool at its place, since a row or a block failed."""
        return self._health[call.place, call.pool].passed > since

    def _died(self, dead: _Open) -> None:
        """Counts the end of a process that was at work."""
        call = dead.call
        if call.node not in self._alive():
            return  # it died with its node, which convicts nobody
        reason = dead.ended_by or self._ending(call)
        if reason != LACKED_MEMORY:  # which says that there is too much at work, not that nothing can be done here
            self._blame_node(call, reason, died=True)
        if dead.row is None:
            suspect = self._blocks.setdefault((call.job, call.block), _Suspect(self._clock()))
            suspect.calls.append(call)
            if dead.hung or self._counted(suspect) >= DEATHS:
                self._careful.add((call.job, call.block))
            return
        # What lacks memory may have lacked it for the sake of others, so that others must get through alone after it.
        since = self._clock() if reason == LACKED_MEMORY else self._since(call)
        suspect = self._rows.setdefault((call.pool, dead.row), _Suspect(since))
        suspect.calls.append(call)
        deaths = self._counted(suspect)
        proved = any(self._passes_since(each, suspect.since) for each in suspect.calls)
        if deaths >= MOST_DEATHS and not proved:
            if len(dead.rows) == 1 and len(self._alive() - set(self._sick)) == 1:
                proved = True  # it is all that is left, so that nothing else can get through
            else:
                self._sick.setdefault(call.node, f"{reason}, whatever row it works on")
        if deaths >= (1 if dead.hung else DEATHS) and proved:
            self._convicted[call.pool][dead.row] = f"{reason} while it worked on this row alone"
            del self._rows[call.pool, dead.row]

    def _ending(self, call: Call) -> str:
        """Why a process has ended that said nothing itself."""
        return LACKED_MEMORY if self._lacked_memory(call.worker) else "its process died"

    def _since(self, call: Call) -> float:
        """When the block of a row failed first."""
        of_block = self._blocks.get((call.job, call.block))
        return self._clock() if of_block is None else of_block.since

    def _counted(self, suspect: _Suspect) -> int:
        """Deaths on nodes that are still there: the others may have died with theirs."""
        alive = self._alive()
        return sum(call.node in alive for call in suspect.calls)

    def _blame_node(self, call: Call, reason: str, *, died: bool = False) -> None:
        health = self._health[call.place, call.pool]
        if died and any(fault.block == call.block for fault in health.faults):
            return  # it may be the block's fault, which is found out otherwise
        health.faults.append(_Fault(self._clock(), call.block))
        if len(health.faults) < FAULTS or call.node in self._sick:
            return
        # Others get through now, not only before what is wrong here came to them.
        others = any(
            pool == call.pool and place != call.place and not seen.faults and seen.passed > health.faults[-2].at
            for (place, pool), seen in self._health.items()
        )
        if self._clock() - health.faults[0].at >= (SICK_AFTER if others else ALL_SICK_AFTER):
            self._sick[call.node] = reason


def _alive_nodes() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
