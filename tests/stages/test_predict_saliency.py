from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from saliency_weights import csnet_state

from raypipe.artifacts import Artifact
from raypipe.data.images import decode_mask
from raypipe.stages.base import Row, run_stages
from raypipe.stages.decode import DecodeImages
from raypipe.stages.predict_saliency import EncodeSaliency, PredictSaliency

SOURCES: tuple[Literal["csnet", "onnx"], ...] = ("csnet", "onnx")


def stage_of(weights: str, max_side: int = 1024) -> PredictSaliency:
    stage = PredictSaliency(source="csnet", weights=Artifact(weights, "w"), max_side=max_side)
    stage.setup("cpu")
    return stage


def predict(stage: PredictSaliency, *images: bytes) -> list[Row]:
    stages = [DecodeImages(max_side=stage.max_side), stage, EncodeSaliency()]
    rows: list[Row] = run_stages(stages, pa.table({"image": pa.array(images, pa.binary())})).to_pylist()
    return rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "csnet.pth.tar"
    torch.save({"epoch": 3, "state_dict": csnet_state()}, path)
    return str(path)


def test_a_map_has_the_images_working_size(weights: str, jpeg: bytes) -> None:
    (whole,) = predict(stage_of(weights), jpeg)
    assert decode_mask(whole["saliency"]).shape == (whole["height"], whole["width"]) == (61, 83)
    (reduced,) = predict(stage_of(weights, max_side=40), jpeg)
    assert decode_mask(reduced["saliency"]).shape == (29, 40)


def test_a_row_does_not_depend_on_the_others(weights: str, jpeg: bytes) -> None:
    stage = stage_of(weights)
    first, broken, second = predict(stage, jpeg, b"no image", jpeg)
    (alone,) = predict(stage, jpeg)
    assert first == second == alone
    assert broken["error_stage"] == "DecodeImages"


def test_salient_is_255(weights: str, jpeg: bytes) -> None:
    stage = stage_of(weights)
    stage.predict = lambda _: torch.cat([torch.ones(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)], dim=3)
    (row,) = predict(stage, jpeg)
    saliency = decode_mask(row["saliency"])
    assert np.unique(saliency[:, :20]).tolist() == [255]
    assert np.unique(saliency[:, -20:]).tolist() == [0]


def test_onnxruntime_runs_on_the_cpu_and_torch_on_a_device() -> None:
    kinds = [PredictSaliency(source=source, weights=Artifact("w", "w"), max_side=1024).kind for source in SOURCES]
    assert kinds == ["device", "finish"]


@pytest.mark.shared_data
def test_published_weights_find_objects(weights_dir: Path, voc_root: Path) -> None:
    stage = stage_of(str(weights_dir / "csnet-L-x2.pth.tar"))
    names = (voc_root / "ImageSets/Segmentation/train.txt").read_text().split()[:40:5]
    rows = predict(stage, *((voc_root / "JPEGImages" / f"{name}.jpg").read_bytes() for name in names))
    errors = []
    for name, row in zip(names, rows, strict=True):
        truth = decode_mask((voc_root / "SegmentationClass" / f"{name}.png").read_bytes())
        known = truth != 255
        errors.append(np.abs(decode_mask(row["saliency"]) / 255 - (truth > 0))[known].mean())
    assert np.mean(errors) < 0.2
