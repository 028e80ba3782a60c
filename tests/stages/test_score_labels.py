import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.data.images import decode_image
from raypipe.networks import build_classifier, network_input
from raypipe.networks.preprocessing import PREPROCESSINGS
from raypipe.stages.networks import load_classifier
from raypipe.stages.score_labels import PoolFeatures, ScoreLabels

OPTIONS: dict[str, Any] = {"output_stride": 8, "max_side": 64, "precision": "fp32"}


def score(stage: ScoreLabels | PoolFeatures, image: bytes) -> np.ndarray:
    stage.setup("cpu")
    (row,) = stage(pa.table({"image_id": ["a"], "image": [image]})).to_pylist()
    assert row["error_reason"] is None
    (name,) = stage.writes.names
    return np.array(row[name], np.float32)


def test_scores_are_the_classifiers_of_the_whole_image(classifier_uri: str, jpeg: bytes) -> None:
    network = load_classifier(classifier_uri, device="cpu")
    pixels = decode_image(jpeg, max_side=64).pixels
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
    with torch.inference_mode():
        logits, features = network.classify(x)[0].numpy(), network.backbone(x)[network.backbone.last_depth]
    classifier = Artifact(classifier_uri, "c")
    np.testing.assert_array_equal(score(ScoreLabels(classifier=classifier, **OPTIONS), jpeg), logits)
    pooled = score(PoolFeatures(backbone="tiny", weights=classifier, preprocessing=None, **OPTIONS), jpeg)
    np.testing.assert_allclose(pooled, features.mean(dim=(2, 3))[0], rtol=1e-5)
    np.testing.assert_allclose(network.fc8.weight.flatten(1).detach().numpy() @ pooled, logits, rtol=1e-4, atol=1e-5)


def test_features_before_the_training_are_those_of_the_given_weights(tmp_path: Path, jpeg: bytes) -> None:
    torch.manual_seed(1)
    network = build_classifier("mobilenet_v2", num_classes=1)
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("fc8")}
    for name in ("given", "staged"):
        torch.save({key.removeprefix("backbone."): value for key, value in weights.items()}, tmp_path / name)
    options = {
        "backbone": "mobilenet_v2",
        "preprocessing": PREPROCESSINGS["tensorflow"],
        **OPTIONS,
        "output_stride": 16,
    }
    given = PoolFeatures(weights=f"{tmp_path}/given", **options)
    found = score(given, jpeg)
    network = build_classifier("mobilenet_v2", num_classes=1, output_stride=16).eval()
    network.load_state_dict(weights, strict=False)
    pixels = decode_image(jpeg, max_side=64).pixels
    x, _ = network_input(pixels, preprocessing=PREPROCESSINGS["tensorflow"], device=torch.device("cpu"))
    with torch.inference_mode():
        expected = network.backbone(x)[network.backbone.last_depth].mean(dim=(2, 3))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    (tmp_path / "given").unlink()
    staged = PoolFeatures(weights=f"{tmp_path}/given", staged_weights=f"{tmp_path}/staged", **options)
    np.testing.assert_array_equal(score(staged, jpeg), found)


@pytest.mark.parametrize("pixels_per_pass", [None, 10**6])
def test_images_that_share_a_pass_keep_their_order(
    classifier_uri: str, jpeg: bytes, pixels_per_pass: int | None
) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).rotate(90, expand=True).save(buffer, format="PNG")
    png = buffer.getvalue()
    stage = ScoreLabels(classifier=Artifact(classifier_uri, "c"), **OPTIONS, pixels_per_pass=pixels_per_pass)
    stage.setup("cpu")
    table = stage(pa.table({"image_id": ["a", "b", "c"], "image": [jpeg, b"no image", png]}))
    assert table["error_stage"].to_pylist() == [None, "ScoreLabels", None]
    alone = [score(ScoreLabels(classifier=Artifact(classifier_uri, "c"), **OPTIONS), image) for image in (jpeg, png)]
    for logits, expected in zip(table["logits"].to_pylist()[::2], alone, strict=True):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
