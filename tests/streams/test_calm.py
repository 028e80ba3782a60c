"""Ray Data's loop pauses after each turn."""

import time
from itertools import pairwise
from typing import cast

import pytest
import ray
import ray.data
from ray.data import DataContext
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from raypipe.streams.calm import PAUSE, Calm


def test_a_turn_ends_with_a_pause() -> None:
    begin = time.perf_counter()
    Calm().on_execution_step(cast("StreamingExecutor", None))
    assert PAUSE <= time.perf_counter() - begin < 100 * PAUSE


def test_ray_data_pauses_after_each_turn(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = list[float]()
    turn = StreamingExecutor.update_metrics

    def counted(self: StreamingExecutor, duration: int) -> None:
        turns.append(time.perf_counter())
        turn(self, duration)

    monkeypatch.setattr(StreamingExecutor, "update_metrics", counted)
    context = DataContext.get_current().copy()
    context.custom_execution_callback_classes = [Calm]
    with DataContext.current(context):
        ray.data.range(8, override_num_blocks=4).map(lambda row: row).materialize()
    assert len(turns) > 1
    assert min(after - before for before, after in pairwise(turns)) >= PAUSE
