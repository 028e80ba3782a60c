from pathlib import Path

import numpy as np
import pytest
import torch
from saliency_weights import csnet_state

from raypipe.data.images import decode_mask
from raypipe.stages.predict_saliency import PredictSaliency


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "csnet.pth.tar"
    torch.save({"epoch": 3, "state_dict": csnet_state()}, path)
    return str(path)


def test_a_map_has_the_images_working_size(weights: str, tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    row = {"image_id": "a", "image_uri": str(tmp_path / "a.jpg")}
    whole = PredictSaliency(source="csnet", weights=weights, max_side=1024).process(row)
    assert (whole["height"], whole["width"]) == (61, 83)
    assert decode_mask(whole["saliency"]).shape == (61, 83)
    reduced = PredictSaliency(source="csnet", weights=weights, max_side=40).process(row)
    assert decode_mask(reduced["saliency"]).shape == (29, 40)


def test_a_row_does_not_depend_on_the_others(weights: str, tmp_path: Path, jpeg: bytes) -> None:
    stage = PredictSaliency(source="csnet", weights=weights, max_side=1024)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    rows = [
        {"image_id": name, "image_uri": uri}
        for name, uri in (("a", str(tmp_path / "a.jpg")), ("b", str(tmp_path / "b.jpg")), ("c", None))
    ]
    outs = stage.process_all(rows)
    assert outs[0]["saliency"] == stage.process(rows[0])["saliency"]
    assert "FileNotFoundError" in outs[1]["error_reason"]
    assert "image_uri is empty" in outs[2]["error_reason"]


def test_salient_is_255(weights: str, tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    stage = PredictSaliency(source="csnet", weights=weights, max_side=1024)
    stage.predict = lambda _: torch.cat([torch.ones(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)], dim=3)
    saliency = decode_mask(stage.process({"image_uri": str(tmp_path / "a.jpg")})["saliency"])
    assert np.unique(saliency[:, :20]).tolist() == [255]
    assert np.unique(saliency[:, -20:]).tolist() == [0]


@pytest.mark.shared_data
def test_published_weights_find_objects(weights_dir: Path, voc_root: Path) -> None:
    stage = PredictSaliency(source="csnet", weights=str(weights_dir / "csnet-L-x2.pth.tar"), max_side=1024)
    errors = []
    for name in (voc_root / "ImageSets/Segmentation/train.txt").read_text().split()[:40:5]:
        row = stage.process({"image_uri": str(voc_root / "JPEGImages" / f"{name}.jpg")})
        truth = decode_mask((voc_root / "SegmentationClass" / f"{name}.png").read_bytes())
        known = truth != 255
        errors.append(np.abs(decode_mask(row["saliency"]) / 255 - (truth > 0))[known].mean())
    assert np.mean(errors) < 0.2
