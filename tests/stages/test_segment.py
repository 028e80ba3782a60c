import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_scores
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.data.images import decode_image
from raypipe.networks import build_segmenter, network_input
from raypipe.stages.segment import SegmentImages


def make_stage(segmenter: str, **changes: Any) -> SegmentImages:
    options = {"scales": (1.0,), "max_side": 1024, "precision": "fp32", **changes}
    stage = SegmentImages(segmenter=Artifact(segmenter, "s"), **options)
    stage.setup("cpu")
    return stage


@pytest.fixture(scope="module")
def segmenter_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny segmentation network of two classes; it finds the second one nowhere."""
    torch.manual_seed(0)
    network = build_segmenter("tiny", head="largefov", num_classes=2)
    last = network.head.classify[-1]  # type: ignore[index]
    torch.nn.init.normal_(last.weight)
    torch.nn.init.constant_(last.bias[2], -100)
    checkpoint = Checkpoint(
        task="segmenter",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"head": "largefov"}},
        weights=network.state_dict(),
    )
    uri = str(tmp_path_factory.mktemp("segmenter"))
    write_checkpoint(checkpoint, uri)
    return uri


def scores_of(row: dict[str, Any]) -> np.ndarray:
    return decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])


def test_probabilities_of_the_classes_that_are_possible(segmenter_uri: str, jpeg: bytes) -> None:
    stage = make_stage(segmenter_uri)
    row = stage.process({"image": jpeg, "class_ids": []})
    assert row["class_ids"] == [1]
    scores = scores_of(row)
    assert scores.shape == (2, 8, 11)
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)
    pixels = decode_image(jpeg).pixels
    x, _ = network_input(pixels, preprocessing=stage.network.preprocessing, device=torch.device("cpu"))
    with torch.inference_mode():
        alone, mirrored = stage.network(torch.cat([x, x.flip(-1)])).softmax(dim=1)
    # The mirror image's cells lie elsewhere, as the image's width is no multiple of their size.
    assert np.abs(scores - ((alone + mirrored.flip(-1)) / 2)[:2].numpy()).mean() < 0.02


def test_mirrored_image_has_mirrored_scores(segmenter_uri: str) -> None:
    stage = make_stage(segmenter_uri, scales=(1.0, 0.5))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
    scores = []
    for picture in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        scores.append(scores_of(stage.process({"image": buffer.getvalue(), "class_ids": []})))
    np.testing.assert_allclose(scores[1], scores[0][..., ::-1], atol=1e-5)


def test_images_share_passes_where_they_may(segmenter_uri: str, jpeg: bytes) -> None:
    alone = make_stage(segmenter_uri).process({"image": jpeg, "class_ids": []})
    together = make_stage(segmenter_uri, pixels_per_pass=10**6)
    rows = together.process_all([{"image": image, "class_ids": []} for image in (jpeg, b"broken", jpeg)])
    assert rows[1]["error_stage"] == "SegmentImages"
    np.testing.assert_allclose(scores_of(rows[2]), scores_of(alone), atol=1e-5)


def test_labels_may_say_which_classes_are_possible(segmenter_uri: str, jpeg: bytes) -> None:
    stage = make_stage(segmenter_uri, within_labels=True)
    assert stage.process({"image": jpeg, "class_ids": [2], "labels": ["dog"]})["class_ids"] == [2]
    row = stage.process({"image": jpeg, "class_ids": [], "labels": []})
    assert row["class_ids"] == []
    assert scores_of(row).shape == (1, 8, 11)
    assert stage.process({"image": jpeg, "class_ids": [], "labels": None})["class_ids"] == [1], "none are known"


def test_labels_are_read_only_where_they_matter() -> None:
    stages = [
        SegmentImages(
            segmenter=Artifact("s", "s"), scales=(1.0,), max_side=1024, precision="fp32", within_labels=within
        )
        for within in (True, False)
    ]
    assert ["labels" in stage.reads for stage in stages] == [True, False]
