from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.artifacts import Artifact
from raypipe.data.images import encode_png
from raypipe.schema import PREDICTED_URI
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops

ARGS: dict[str, Any] = {
    "classes": ("cat", "dog", "emu"),
    "long_side": (40, 80),
    "crop_size": 32,
    "fill": (1, 2, 3),
    "jitter": (0.3, 0.3, 0.3, 0.1),
    "seed": 0,
    "max_side": 1024,
}
MAPS = Artifact("maps", "m")


@pytest.fixture
def row(tmp_path: Path, jpeg: bytes) -> dict[str, Any]:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "a.png").write_bytes(encode_png(np.full((61, 83), 200, np.uint8)))
    uris = {"image_uri": str(tmp_path / "a.jpg"), "saliency_uri": str(tmp_path / "a.png"), PREDICTED_URI: None}
    return {"image_id": "a", "epoch": 3, "repeat": 0, "labels": ["dog"]} | uris


def test_labels_and_saliency_beside_the_classifiers_crop(row: dict[str, Any]) -> None:
    out = LoadSaliencyCrops(maps=MAPS, **ARGS).process(row)
    assert out["crop"] == LoadClassifierCrops(**ARGS).process(row)["crop"]
    target = np.frombuffer(out["target"], np.uint8)
    assert target[:3].tolist() == [0, 1, 0]
    assert target[3:].shape == (32 * 32,)
    assert set(target[3:].tolist()) <= {0, 200}
    assert (target[3:] == 200).any()


def test_a_predicted_map_takes_the_place_of_a_missing_one(row: dict[str, Any]) -> None:
    given = LoadSaliencyCrops(maps=MAPS, **ARGS).process(row)
    moved = row | {"saliency_uri": None, PREDICTED_URI: row["saliency_uri"]}
    assert LoadSaliencyCrops(maps=MAPS, **ARGS).process(moved) == given
    assert LoadSaliencyCrops(maps=MAPS, **ARGS).process(row | {PREDICTED_URI: "absent.png"}) == given


def test_without_a_map_the_row_is_in_error(row: dict[str, Any]) -> None:
    stage = LoadSaliencyCrops(maps=MAPS, **ARGS)
    with pytest.raises(ValueError, match="saliency_uri is empty"):
        stage.process(row | {"saliency_uri": None})
    with pytest.raises(FileNotFoundError):
        stage.process(row | {"saliency_uri": row["saliency_uri"] + "x"})


def test_a_map_of_another_image_is_an_error(row: dict[str, Any]) -> None:
    Path(row["saliency_uri"]).write_bytes(encode_png(np.zeros((83, 61), np.uint8)))
    with pytest.raises(ValueError, match="belongs to no image"):
        LoadSaliencyCrops(maps=MAPS, **ARGS).process(row)
