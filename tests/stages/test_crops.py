from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from crop_inputs import ARGS

from raypipe import storage
from raypipe.artifacts import digest
from raypipe.ops.jitter import ColourChange, change_colours
from raypipe.stages.crops import LoadClassifierCrops


def test_classifier_crop_and_labels(row: dict[str, Any]) -> None:
    stage = LoadClassifierCrops(classes=("cat", "dog", "emu"), long_side=(40, 80), **ARGS)
    out = stage.process(row)
    assert len(out["crop"]) == 32 * 32 * 3
    np.testing.assert_array_equal(np.frombuffer(out["target"], np.uint8), [0, 1, 0])


def test_random_depends_on_seed_epoch_repeat_and_id_alone(row: dict[str, Any]) -> None:
    def crop(**changes: Any) -> bytes:
        stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **{**ARGS, "seed": changes.pop("seed", 0)})
        return bytes(stage.process(row | changes)["crop"])

    assert crop() == crop()
    assert len({crop(), crop(epoch=4), crop(repeat=1), crop(image_id="b"), crop(seed=1)}) == 5


def test_a_reader_that_changes_the_colours_gets_the_same_crop(row: dict[str, Any]) -> None:
    stage = LoadClassifierCrops(classes=("dog",), long_side=(24, 30), **ARGS)  # smaller than the crop: fill around it
    here, later = stage.process(row), replace(stage, recolours=False).process(row)
    assert here["colours"] is None
    pixels = torch.from_numpy(np.frombuffer(later["crop"], np.uint8).reshape(32, 32, 3).copy()).permute(2, 0, 1)
    assert (pixels == torch.tensor([1, 2, 3])[:, None, None]).all(dim=0).any()
    changed = change_colours(pixels, ColourChange(**later["colours"]))
    assert changed.permute(1, 2, 0).numpy().tobytes() == here["crop"]
    assert here["crop"] != later["crop"]
    assert digest(stage) == digest(replace(stage, recolours=False))


def test_files_of_all_rows_are_fetched_together(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    read_many = storage.read_many
    monkeypatch.setattr(storage, "read_many", lambda uris: asked.append(set(uris)) or read_many(uris))
    rows = [row, row | {"image_uri": row["image_uri"] + "x"}, row | {"error_stage": "Earlier"}]
    stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS)
    good, absent, earlier = stage.process_all(rows)
    assert asked == [{row["image_uri"], row["image_uri"] + "x"}]
    assert good["crop"] == stage.process(row)["crop"]
    assert "FileNotFoundError" in absent["error_reason"]
    assert earlier["error_stage"] == "Earlier"


@pytest.mark.parametrize("uri", [None, ""])
def test_a_row_without_an_image_is_an_error_of_its_own(row: dict[str, Any], uri: str | None) -> None:
    stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS)
    bad, good = stage.process_all([row | {"image_uri": uri}, row])
    assert "image_uri is empty" in bad["error_reason"]
    assert good["crop"]
