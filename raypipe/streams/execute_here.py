"""Runs a plan's pools in this process: for some hundred rows that need no network, Ray takes longer to start."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from raypipe import storage
from raypipe.outputs.sink import ShardWriter
from raypipe.stages.base import run_stages, with_error_columns
from raypipe.streams.plan import Plan, Pool

MOST_ROWS = 2_000
"""Rows that are computed here."""


def can_run_here(plan: Plan, *, most_rows: int) -> bool:
    """Whether a plan is one for this process: few rows, no network, and masks that a run has written.

    Where nothing of a run is taken, files of others are read, which may end a process: Ray finds out which do.

    Args:
        plan: what is computed.
        most_rows: that there may be.
    """
    return bool(plan.takes) and most_rows <= MOST_ROWS and all(stage.kind != "device" for stage in plan.stages)


def execute_here(blocks: Iterable[pa.Table], pools: Sequence[Pool], *, writer: ShardWriter) -> Iterator[pa.Table]:
    """Runs blocks of rows through pools, one after another, and yields what `writer` says of each block.

    What is wrong with a row puts it into quarantine, as on Ray; storage that is away is waited for.
    """
    stages = [stage for pool in pools for stage in pool.stages]
    for stage in stages:
        stage.setup("cpu")
    for table in blocks:
        with storage.patience(), _one_thread():
            written = writer.write(run_stages(stages, with_error_columns(table), keep=pools[-1].keep))
        yield written


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the processes of Ray: sums of several of torch's threads are rounded in another order."""
    if (torch := sys.modules.get("torch")) is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
