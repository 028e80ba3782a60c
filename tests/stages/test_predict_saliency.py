from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from saliency_models import onnx_model

from raypipe.artifacts import Artifact
from raypipe.data.images import decode_mask
from raypipe.stages import predict_saliency
from raypipe.stages.base import Row, run_stages
from raypipe.stages.decode import DecodeImages
from raypipe.stages.predict_saliency import EncodeSaliency, PredictSaliency

BYTES = (128.0, 256.0)


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def stage_of(weights: str, **options: Any) -> PredictSaliency:
    given: dict[str, Any] = {"preprocessing": BYTES, "max_side": 1024} | options
    stage = PredictSaliency(weights=Artifact(weights, "w"), **given)
    stage.setup("cpu")
    return stage


def predict(stage: PredictSaliency, *images: bytes) -> list[Row]:
    stages = [DecodeImages(max_side=stage.max_side), stage, EncodeSaliency()]
    rows: list[Row] = run_stages(stages, pa.table({"image": pa.array(images, pa.binary())})).to_pylist()
    return rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "redness.onnx"
    path.write_bytes(onnx_model())
    return str(path)


def test_a_map_has_the_images_working_size(weights: str, jpeg: bytes) -> None:
    (whole,) = predict(stage_of(weights), jpeg)
    assert decode_mask(whole["saliency"]).shape == (whole["height"], whole["width"]) == (61, 83)
    (reduced,) = predict(stage_of(weights, max_side=40), jpeg)
    assert decode_mask(reduced["saliency"]).shape == (29, 40)


@pytest.mark.parametrize("pixels_per_pass", [None, 10**6])
def test_a_row_does_not_depend_on_the_others(weights: str, jpeg: bytes, pixels_per_pass: int | None) -> None:
    stage = stage_of(weights, pixels_per_pass=pixels_per_pass)
    first, broken, second = predict(stage, jpeg, b"no image", jpeg)
    (alone,) = predict(stage, jpeg)
    assert first == second == alone
    assert broken["error_stage"] == "DecodeImages"


def passes(stage: PredictSaliency, image: bytes, number: int) -> list[int]:
    """How many images are in each pass."""
    sizes = []
    network = stage.network

    class Counting:
        height, width, is_joint = network.height, network.width, network.is_joint

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return network(x)

    stage.network = Counting()  # type: ignore[assignment]
    predict(stage, *[image] * number)
    return sizes


def test_images_share_passes_where_the_mode_and_the_model_let_them(weights: str, jpeg: bytes, tmp_path: Path) -> None:
    size = 32 * 48
    assert passes(stage_of(weights, pixels_per_pass=3 * size), jpeg, 5) == [3, 2]
    assert passes(stage_of(weights), jpeg, 5) == [1] * 5
    (tmp_path / "alone.onnx").write_bytes(onnx_model((1, 3, 32, 48)))
    assert passes(stage_of(str(tmp_path / "alone.onnx"), pixels_per_pass=3 * size), jpeg, 5) == [1] * 5


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [(BYTES, 200 / 256), ("tensorflow", 200 / 127.5), (((0.0, 0.0, 50.0), (100.0, 9.0, 25.0)), 2.0 + 2.0)],
)
def test_pixels_are_normalised_as_told(weights: str, preprocessing: Any, expected: float) -> None:
    """Of pixels with red 200 and blue 0 the model returns sigmoid(red - blue) of what it gets."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0] = 200
    (row,) = predict(stage_of(weights, preprocessing=preprocessing), png(image))
    values = decode_mask(row["saliency"])
    assert np.unique(values).tolist() == [round(255 / (1 + np.exp(-expected)))]


def test_salient_is_255_and_stays_at_its_place(weights: str) -> None:
    image = np.zeros((61, 83, 3), np.uint8)
    image[..., 2] = 255
    image[20:50, :40] = [255, 0, 0]
    (row,) = predict(stage_of(weights, preprocessing=(0.0, 25.0)), png(image))
    saliency = decode_mask(row["saliency"])
    salient = np.zeros((61, 83), bool)
    salient[20:50, :40] = True
    assert saliency[24:46, 3:36].min() == 255
    assert saliency[:16].max() == saliency[54:].max() == saliency[:, 44:].max() == 0
    assert ((saliency > 127) == salient).mean() > 0.97


def test_a_network_shares_the_gpus_only_where_onnxruntime_can(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = PredictSaliency(weights=Artifact("w", "w"), preprocessing="imagenet", max_side=1024)
    for can, kind in [(True, "device"), (False, "finish")]:
        monkeypatch.setattr(predict_saliency, "runs_on_cuda", lambda can=can: can)
        assert stage.kind == kind
