from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.data.images import encode_png
from raypipe.stages.augment import LoadAffinityCrops, LoadClassifierCrops

ARGS: dict[str, Any] = {"crop_size": 32, "fill": (1, 2, 3), "jitter": (0.3, 0.3, 0.3, 0.1), "seed": 0, "max_side": 1024}


@pytest.fixture
def row(tmp_path: Path, jpeg: bytes) -> dict[str, Any]:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    trimap = np.full((8, 11), 255, np.uint8)
    trimap[:4] = 1
    uri = str(tmp_path / "a.jpg")
    key = {"image_id": "a", "epoch": 3, "repeat": 0}
    return key | {"image_uri": uri, "labels": ["dog"], "trimap": encode_png(trimap)}


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


def test_affinity_crop_and_trimap(row: dict[str, Any]) -> None:
    out = LoadAffinityCrops(**ARGS).process(row)
    assert len(out["crop"]) == 32 * 32 * 3
    assert set(np.frombuffer(out["target"], np.uint8)) <= {1, 255}
    assert len(out["target"]) == 16


def test_trimap_of_another_image_is_an_error(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs a trimap of"):
        LoadAffinityCrops(**ARGS).process(row | {"trimap": encode_png(np.zeros((2, 2), np.uint8))})
