"""A stream as a list of steps: what runs in which order with which resources.

`apply` is the only caller of `map_batches`. Before any actor starts, `check` makes sure that every column a stage reads
is produced upstream, and `describe` prints the plan.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from raypipe.stages.base import Stage, with_error_columns

TRANSIENT = (r"(OSError|Connection\w*|Timeout\w*|Client\w*Error|ServerDisconnected\w*): ",)
"""What passes by itself: storage that is away or busy for a while. In the words of Ray Data's error messages."""

MAX_RETRIES = 8
"""Tries after the first. Ray Data waits a random part of 2, 4, 8 ... 32 seconds before each, over a minute in all on
average: so long an outage is sat out."""

CALLS_PER_ACTOR = 2
"""Stages still run one batch at a time, but the next one is at hand when they are done: a stage that takes 20 ms a row
was busy 99 % of its time instead of 93 %."""

ROOM = (
    "lower cluster.*_actors, raise cluster.num_cpus on a local Ray, or set cluster.autoscaling on a cluster that "
    "brings nodes when they are asked for"
)
"""The way out where a cluster is too small."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage and how it is run; resources live here, never in the stage."""

    stage: type[Stage]
    args: Mapping[str, Any] = field(default_factory=dict)
    """The stage's keyword arguments."""
    num_actors: int = 1
    max_actors: int | None = None
    """The pool grows up to here while rows pile up before it; None keeps `num_actors`."""
    num_cpus: float = 1
    """Logical CPUs of an actor; Ray gives torch and OpenMP as many threads."""
    num_gpus: float = 0
    batch_size: int = 4
    """Rows per call: the stage works row by row, so this only spreads the cost of a call."""


def check(columns: Iterable[str], steps: Sequence[Step]) -> None:
    """Makes sure that each step's columns are there.

    Args:
        columns: the source's columns.
        steps: in order.

    Raises:
        ValueError: naming stage, missing columns and what is there.
    """
    present = set(columns)
    for step in steps:
        missing = [name for name in step.stage.reads if name not in present]
        if missing:
            raise ValueError(
                f"{step.stage.__name__} reads {missing}, but upstream there are only {sorted(present)}; "
                "put the stage that writes them before it"
            )
        present = (present - set(step.stage.drops)) | {column.name for column in step.stage.writes}


def describe(steps: Sequence[Step]) -> str:
    """The plan as a table: stage, actors, resources, batch size, reads, writes."""
    rows = [("stage", "actors", "cpus", "gpus", "batch", "reads → writes")]
    for step in steps:
        writes = ", ".join(column.name for column in step.stage.writes)
        rows.append(
            (
                step.stage.__name__,
                str(step.num_actors) if step.max_actors is None else f"{step.num_actors}-{step.max_actors}",
                f"{step.num_cpus:g}",
                f"{step.num_gpus:g}",
                str(step.batch_size),
                f"{', '.join(step.stage.reads)} → {writes}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    )


def needs(steps: Sequence[Step]) -> dict[str, float]:
    """CPUs and GPUs that a stream holds from its start to its end."""
    return {
        "CPU": sum(step.num_actors * step.num_cpus for step in steps) + 1,  # one for the task that writes
        "GPU": sum(step.num_actors * step.num_gpus for step in steps),
    }


def apply(dataset: Dataset, steps: Sequence[Step], *, autoscaling: bool = False) -> Dataset:
    """Adds the steps to a dataset; each is a pool of actors that hold their stage.

    Args:
        dataset: rows.
        steps: in order.
        autoscaling: the cluster gets the nodes that are missing.

    Raises:
        ValueError: if the actors need more CPUs or GPUs than the cluster has: the stream would wait for ever.
    """
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for kind, need in needs(steps).items():
        if need > have.get(kind, 0) and not autoscaling:
            raise ValueError(
                f"the stream needs {need:g} {kind}s, the cluster has {have.get(kind, 0):g}; {ROOM}\n{describe(steps)}"
            )
    for step in steps:
        pool = ActorPoolStrategy(
            min_size=step.num_actors,
            max_size=step.max_actors or step.num_actors,
            max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
        )
        dataset = dataset.map_batches(
            step.stage,
            fn_constructor_kwargs=dict(step.args),
            batch_format="pyarrow",
            batch_size=step.batch_size,
            compute=pool,
            num_cpus=step.num_cpus,
            num_gpus=step.num_gpus,
        )
    return dataset


def source(table: pa.Table, *, rows_per_block: int) -> Dataset:
    """A dataset of an Arrow table, cut into blocks, with the error columns that every row carries."""
    table = with_error_columns(table)
    options = ray.data.DataContext.get_current()
    options.retried_map_errors = list(TRANSIENT)
    options.max_map_retries = MAX_RETRIES
    blocks = [table.slice(start, rows_per_block) for start in range(0, table.num_rows, rows_per_block)]
    # Not `from_arrow`, which has a task on the cluster look at each block: a million rows wait minutes for them.
    dataset: Dataset = ray.data.from_blocks(blocks)
    return dataset
