"""A stream's plan: which stages make which columns of which rows. The plan is what the outputs' digest is made of.

A plan knows no machine. Which of its stages run together in one process follows from their kinds and from whether there
are GPUs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from raypipe import storage
from raypipe.artifacts import Artifact, digest, identity
from raypipe.outputs.load import Load
from raypipe.outputs.sink import PART, PART_TODO
from raypipe.schema import ROW_DIGEST, SHARD_DIGEST
from raypipe.stages.base import Kind, Stage, columns_after

FORMAT = 1
"""Of a stream's folder. A folder of another format isn't resumed; any version of raypipe with this one goes on."""


@dataclass(frozen=True)
class Pool:
    """Stages that run together in one process; a row crosses processes between pools only."""

    kind: Kind
    stages: tuple[Stage, ...]
    keep: tuple[str, ...]
    """Columns that somebody needs after them."""

    @property
    def name(self) -> str:
        """The stages' names, as they stand in plans and on Ray's dashboard."""
        return " + ".join(type(stage).__name__ for stage in self.stages)

    @property
    def gpu_setting(self) -> str | None:
        """The setting that wants a GPU for one of the stages; None where all run anywhere."""
        return next((stage.gpu_setting for stage in self.stages if stage.gpu_setting), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stream computes."""

    name: str
    """Of the stream, which is also the name of its folder below `out`."""
    stages: tuple[Stage, ...]
    """In the order in which a row goes through them; they and their settings are what the outputs depend on."""
    schema: pa.Schema
    """Columns of the outputs."""
    classes: tuple[str, ...]
    """Class names in class-id order: class ids in the outputs mean nothing without them."""
    takes: tuple[Load, ...] = ()
    """What rows bring along from other streams' outputs."""
    reuse: tuple[Stage, Load] | None = None
    """A stage, and what to load of an earlier stream instead of running it. The outputs are the same, so their digest
    is."""
    title: str = ""
    """What the screen calls it, where a command has several streams of one name; empty calls it by its name."""

    @property
    def digest(self) -> str:
        """12 hex digits over all that the outputs depend on, but for the rows: stages, their settings and artifacts."""
        return digest([self.name, self.schema.names, self.classes, self.takes, self.stages])

    def artifact(self, out: str) -> Artifact:
        """The folder below `out` that holds the outputs."""
        return Artifact(storage.join(out, self.name, self.digest), self.digest)

    def provenance(self) -> dict[str, Any]:
        """What is stored with the outputs."""
        return {
            "stream": self.name,
            "takes": identity(self.takes),
            "stages": identity(self.stages),
            "classes": self.classes,
            "format": FORMAT,
        }

    @property
    def loads(self) -> tuple[Load, ...]:
        """All that rows are looked up in."""
        return self.takes if self.reuse is None else (*self.takes, self.reuse[1])

    @property
    def read_loads(self) -> tuple[Load, ...]:
        """Those of which columns are read: not what only the stage reads whose outputs are loaded."""
        needed = {*self.schema.names, *(name for stage in self.steps for name in stage.reads)}
        return tuple(load for load in self.loads if not needed.isdisjoint(load.writes))

    @property
    def steps(self) -> tuple[Stage, ...]:
        """The stages that run: a stage whose outputs are loaded isn't among them."""
        return self.stages if self.reuse is None else tuple(each for each in self.stages if each is not self.reuse[0])

    def row_columns(self) -> tuple[str, ...]:
        """Columns of a row that its output depends on: what stages read of the source, and what is known of loads."""
        written = {name for load in self.takes for name in load.writes}
        read = [load.prefix + SHARD_DIGEST for load in self.takes]
        for stage in self.stages:
            read += [name for name in stage.reads if name not in written and name not in read]
            written.update(stage.writes.names, stage.leaves)
        return tuple(sorted(read))

    def pools(self, *, gpus: bool) -> tuple[Pool, ...]:
        """Groups the stages into pools.

        Without GPUs all stages run in one process, one after the other, and a row never leaves it. With GPUs, what
        runs on a device shares an actor, so that the CPU's work never keeps a device waiting.

        Args:
            gpus: there are some, and the plan may use them.
        """
        stages = self.steps
        networks = any(stage.kind == "device" for stage in stages)
        kinds: list[Kind] = ["device" if networks else "finish"] * len(stages)
        if gpus and networks:
            following: Kind = "finish"
            for index in reversed(range(len(stages))):
                following = stages[index].kind or following
                kinds[index] = following
        groups = groupby(zip(kinds, stages, strict=True), key=lambda pair: pair[0])
        parts = [(kind, tuple(stage for _, stage in pairs)) for kind, pairs in groups]
        needed = {"image_id", ROW_DIGEST, PART, PART_TODO, *self.schema.names}
        pools: list[Pool] = []
        for kind, members in reversed(parts):
            pools.append(Pool(kind, members, tuple(sorted(needed))))
            needed |= {name for stage in members for name in stage.reads}
        return tuple(reversed(pools))

    def check(self, columns: Iterable[str]) -> None:
        """Makes sure that each stage's columns are there, and all columns of the outputs in the end.

        Args:
            columns: of the rows, without what is loaded.

        Raises:
            ValueError: naming stage, missing columns and what is there.
        """
        present = [*columns, *(name for load in self.loads for name in load.writes)]
        for pool in self.pools(gpus=True):
            present = columns_after(present, pool.stages)
        if missing := [name for name in self.schema.names if name not in present]:
            raise ValueError(f"no stage of {self.name} writes {missing}; there are only {sorted(present)}")


def describe(plan: Plan, pools: Sequence[Pool]) -> list[str]:
    """What rows bring along from other streams, and what goes into each stage and comes out, a line each."""
    taken = [f"from {load.outputs.uri}: {', '.join(load.writes)}" for load in plan.loads]
    return taken + [
        f"{type(stage).__name__}: {', '.join(stage.reads)} → {', '.join([*stage.writes.names, *stage.leaves])}"
        for pool in pools
        for stage in pool.stages
    ]
