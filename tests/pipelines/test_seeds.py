from pathlib import Path

import pytest

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.outputs.records import open_folder
from raypipe.pipelines.context import Context
from raypipe.pipelines.seeds import find_seeds, given_seeds, seeds_plan

MAPS = Artifact("classifier", "c")


def make_context(folder: Path, *options: str) -> Context:
    given = [f"manifest={folder}/m.parquet", f"out={folder}/out", *options]
    return Context(load_config("preset: demo", given), Manifest.from_rows([], ("cat", "dog")))


def test_seeds_are_found_once_they_are_begun(tmp_path: Path) -> None:
    """Of the same maps and trimaps alone."""
    context = make_context(tmp_path)
    assert find_seeds(context, maps=MAPS) is None
    plan = seeds_plan(context, maps=MAPS)
    made = plan.artifact(context.config.out)
    open_folder(made.uri, plan.provenance())
    assert find_seeds(context, maps=MAPS) == made
    assert find_seeds(context, maps=Artifact("classifier", "d")) is None
    assert find_seeds(make_context(tmp_path, "trimaps.alpha_low=3"), maps=MAPS) is None


def test_maps_that_are_given_have_to_be_there(tmp_path: Path) -> None:
    assert given_seeds(make_context(tmp_path)) is None
    context = make_context(tmp_path, f"checkpoints.seeds={tmp_path}/cams")
    with pytest.raises(ValueError, match="`raypipe import seeds SOURCE MANIFEST"):
        given_seeds(context)
    (tmp_path / "cams").mkdir()
    (tmp_path / "cams/seeds.json").write_text('{"digest": "d"}')
    assert given_seeds(context) == Artifact(f"{tmp_path}/cams", "d")
