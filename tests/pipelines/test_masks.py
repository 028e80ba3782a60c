from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines import masks
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_plan, with_seeds
from raypipe.pipelines.seeds import seeds_plan
from raypipe.schema import QUARANTINE, ROW_DIGEST, SEEDS, SHARD_URI
from raypipe.streams.records import open_folder
from raypipe.streams.sink import QUARANTINED, SHARDS, write_shard

MAPS, AFFINITY = Artifact("classifier", "c"), Artifact("affinity", "a")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    rows: list[dict[str, Any]] = [
        {"image_id": name, "image_uri": name, "labels": ["cat"]} for name in ("a", "b", "bad")
    ]
    config = load_config("preset: demo", [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out"])
    return Context(config, Manifest.from_rows(rows, ("cat", "dog")))


def test_without_seeds_all_maps_are_computed(context: Context) -> None:
    plan, rows = masks_plan(context, maps=MAPS, affinity=AFFINITY), context.rows(None)
    assert with_seeds(context, plan, rows, maps=MAPS) == (plan, rows)


def test_seeds_are_finished_first_and_taken_up(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have quarantined is quarantined again, with the same reason."""
    seeds = seeds_plan(context, maps=MAPS)
    made = seeds.artifact(context.config.out)
    open_folder(made.uri, seeds.provenance())
    finished = []

    def finish(_context: Context, *, maps: Artifact) -> tuple[Artifact, None]:
        finished.append(maps)
        schema = SEEDS.append(pa.field(ROW_DIGEST, pa.string()))
        rows = [{"image_id": name, "cam": b"", ROW_DIGEST: f"of {name}"} for name in ("a", "b")]
        write_shard(made.uri, SHARDS, pa.Table.from_pylist(rows, schema=schema))
        failed = {"image_id": "bad", "stage": "DecodeImages", "reason": "cut off", ROW_DIGEST: "of bad"}
        write_shard(made.uri, QUARANTINED, pa.Table.from_pylist([failed], schema=QUARANTINE))
        return made, None

    monkeypatch.setattr(masks, "run_seeds", finish)
    plan = masks_plan(context, maps=MAPS, affinity=AFFINITY)
    reusing, rows = with_seeds(context, plan, context.rows(None), maps=MAPS)
    assert finished == [MAPS]
    assert reusing.digest == plan.digest, "masks don't depend on who computes their maps"
    assert [type(stage).__name__ for stage in reusing.steps][:3] == ["FetchImages", "LoadCams", "DecodeImages"]
    found = {row["image_id"]: row for row in rows.to_pylist()}
    assert all(made.digest in found[name][SHARD_URI] for name in ("a", "b"))
    assert [found[name]["error_stage"] for name in ("a", "b", "bad")] == [None, None, "DecodeImages"]
    assert found["bad"]["error_reason"] == "cut off"
