"""Streams without Ray, for tests of what is made of their outputs."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import pytest

from raypipe.cluster.machines import parse_machine
from raypipe.outputs.sink import ShardWriter
from raypipe.pipelines.context import Context
from raypipe.stages.base import run_stages
from raypipe.streams import run
from raypipe.streams.plan import Pool


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams run here, their pools one after the other; all else of a stream is real."""

    def execute(
        blocks: Sequence[pa.Table], pools: Sequence[tuple[Pool, Any]], *, writer: ShardWriter, **_options: Any
    ) -> Iterator[pa.Table]:
        for table in blocks:
            for pool, _ in pools:
                for stage in pool.stages:
                    stage.setup("cpu")
                table = run_stages(pool.stages, table, keep=pool.keep)
            yield writer.write(table)

    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(run, "watch_start", lambda *_, **__: nullcontext())
    monkeypatch.setattr(Context, "machine", parse_machine("cpus=2,memory=8"))
