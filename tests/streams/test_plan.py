from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import ActorPoolStrategy

from raypipe.stages.base import Row, Stage
from raypipe.streams import plan as graph


class First(Stage):
    reads = ("image_id",)
    writes = pa.schema([pa.field("cam", pa.binary())])

    def process(self, row: Row) -> Row:
        return {"cam": row["image_id"].encode()}


class Second(Stage):
    reads = ("cam",)
    writes = pa.schema([pa.field("mask", pa.binary())])
    drops = ("cam",)

    def process(self, row: Row) -> Row:
        return {"mask": row["cam"]}


STEPS = [
    graph.Step(stage=First, args={}, num_actors=2, num_cpus=3, num_gpus=0.5, batch_size=7),
    graph.Step(stage=Second, max_actors=5),
]


class RecordingDataset:
    """Stands in for a Dataset and keeps what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def map_batches(self, stage: Any, **options: Any) -> "RecordingDataset":
        self.calls.append((stage, options))
        return self


def test_check_accepts_columns_produced_upstream() -> None:
    graph.check(["image_id"], STEPS)


def test_check_names_stage_and_missing_columns() -> None:
    with pytest.raises(ValueError, match=r"Second reads \['cam'\], but upstream there are only \['image_id'\]"):
        graph.check(["image_id"], STEPS[1:])


def test_check_knows_dropped_columns() -> None:
    with pytest.raises(ValueError, match="Second reads"):
        graph.check(["image_id"], [*STEPS, STEPS[1]])


def test_describe_shows_stages_in_order_with_resources_and_columns() -> None:
    lines = graph.describe(STEPS).splitlines()
    assert lines[0].split()[:5] == ["stage", "actors", "cpus", "gpus", "batch"]
    assert lines[1].split() == ["First", "2", "3", "0.5", "7", "image_id", "→", "cam"]
    assert lines[2].split()[:2] == ["Second", "1-5"]


def test_apply_schedules_each_stage_as_its_step_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    dataset = RecordingDataset()
    graph.apply(dataset, STEPS)  # type: ignore[arg-type]
    (first, options), (second, growing) = dataset.calls
    assert (first, second) == (First, Second)
    assert isinstance(options["compute"], ActorPoolStrategy)
    assert (options["compute"].min_size, options["compute"].max_size) == (2, 2)
    assert (growing["compute"].min_size, growing["compute"].max_size) == (1, 5)
    assert (options["num_cpus"], options["num_gpus"], options["batch_size"]) == (3, 0.5, 7)
    assert options["batch_format"] == "pyarrow"


@pytest.mark.parametrize("resources", [{"CPU": 7.0, "GPU": 1.0}, {"CPU": 16.0}])
def test_apply_refuses_what_would_wait_for_ever(resources: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    with pytest.raises(ValueError, match=r"the stream needs .* (CPU|GPU)s, the cluster has"):
        graph.apply(RecordingDataset(), STEPS)  # type: ignore[arg-type]


def test_source_cuts_a_table_into_blocks_in_its_order(local_ray: None) -> None:
    names = [f"image{index:04d}" for index in range(1000)]
    table = pa.table({"image_id": names, "number": range(1000)}).filter(pa.array([True, True, False, True] * 250))
    dataset = graph.source(table, rows_per_block=32)
    assert dataset.num_blocks() == 24
    batches = list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    assert [batch.num_rows for batch in batches] == [32] * 23 + [14]
    rows = pa.concat_tables(batches)
    assert rows.select(table.column_names).equals(table)
    assert rows["error_stage"].null_count == rows["error_reason"].null_count == 750
