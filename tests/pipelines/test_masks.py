from pathlib import Path
from typing import Any

import pytest
from stream_outputs import write_outputs, write_quarantine

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.outputs.records import open_folder
from raypipe.pipelines import masks
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_plan, with_seeds
from raypipe.pipelines.seeds import seeds_plan
from raypipe.schema import SEEDS
from raypipe.streams.source import Source

MAPS, AFFINITY = Artifact("classifier", "c"), Artifact("affinity", "a")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    rows: list[dict[str, Any]] = [
        {"image_id": name, "image_uri": name, "labels": ["cat"]} for name in ("a", "b", "bad")
    ]
    config = load_config("preset: demo", [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out"])
    return Context(config, Manifest.from_rows(rows, ("cat", "dog")))


def test_without_seeds_all_maps_are_computed(context: Context) -> None:
    plan = masks_plan(context, maps=MAPS, affinity=AFFINITY)
    assert with_seeds(context, plan, maps=MAPS) == plan


def test_seeds_are_finished_first_and_taken_up(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have quarantined is quarantined again, with the same reason."""
    seeds = seeds_plan(context, maps=MAPS)
    made = seeds.artifact(context.config.out)
    open_folder(made.uri, seeds.provenance())
    finished = []

    def finish(_context: Context, *, maps: Artifact) -> tuple[Artifact, None]:
        finished.append(maps)
        write_outputs(made.uri, SEEDS, [{"image_id": name, "cam": name.encode()} for name in ("a", "b")])
        write_quarantine(made.uri, {"bad": ("DecodeImages", "cut off")})
        return made, None

    monkeypatch.setattr(masks, "run_seeds", finish)
    plan = masks_plan(context, maps=MAPS, affinity=AFFINITY)
    reusing = with_seeds(context, plan, maps=MAPS)
    assert finished == [MAPS]
    assert reusing.digest == plan.digest, "masks don't depend on who computes their maps"
    assert reusing.row_columns() == plan.row_columns(), "nor do rows"
    assert [type(stage).__name__ for stage in reusing.steps][:3] == ["FetchImages", "DecodeImages", "GateWalk"]

    source = Source.of(reusing, context.rows(None), plan.artifact(context.config.out).uri, run=1)
    (part,) = source.rows.parts
    found = {
        row["image_id"]: row for table in source.cut(source.todo(part), rows_per_table=8) for row in table.to_pylist()
    }
    assert [found[name]["cam"] for name in ("a", "b", "bad")] == [b"a", b"b", None]
    assert [found[name]["error_stage"] for name in ("a", "b", "bad")] == [None, None, "DecodeImages"]
    assert found["bad"]["error_reason"] == "cut off"
