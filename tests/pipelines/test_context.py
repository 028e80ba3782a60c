from pathlib import Path

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines.context import draw, open_context


def test_seeds_are_needed_for_training_and_for_masks(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    base = [f"manifest={synthetic[0]}", f"out={tmp_path}"]
    context = open_context(load_config("preset: demo", [*base, "splits.masks=[val]"]))
    assert context.seed_rows().num_rows == 24
    assert context.rows(["val"]).num_rows == 6
    assert open_context(load_config("preset: demo", [*base, "splits.masks=null"])).seed_rows().num_rows == 24


def test_draws_depend_on_ids_alone() -> None:
    ids = [f"image {number}" for number in range(50)]
    drawn = [ids[index] for index in draw(ids, 10)]
    assert drawn == [ids[::-1][index] for index in draw(ids[::-1], 10)]
    assert set(drawn) != {ids[index] for index in draw(ids, 10, seed=1)}
    assert sorted(draw(ids, None)) == list(range(50))
