import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.config import Cams
from raypipe.data.arrays import decode_cam
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.networks import build_classifier, build_saliency_classifier
from raypipe.stages.cams import ComputeCams


def make_stage(checkpoint: str, **cams: Any) -> ComputeCams:
    stage = ComputeCams(
        classifier=Artifact(checkpoint, "c"),
        cams=Cams(**{"scales": (1.0, 0.5), **cams}),
        max_side=1024,
        precision="fp32",
    )
    stage.setup("cpu")
    return stage


def compute(stage: ComputeCams, image: bytes, class_ids: list[int]) -> np.ndarray:
    row = stage.process({"image": image, "class_ids": class_ids})
    return decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])


@pytest.fixture(scope="module")
def stage(classifier_uri: str) -> ComputeCams:
    return make_stage(classifier_uri)


def test_maps_of_the_labelled_classes_at_stride_4(stage: ComputeCams, jpeg: bytes) -> None:
    cam = compute(stage, jpeg, [1, 2])
    assert cam.shape == (2, 16, 21)
    assert cam.min() >= 0
    np.testing.assert_allclose(cam.max(axis=(1, 2)), 1, atol=1e-3)


def test_maps_as_fine_as_the_image(classifier_uri: str, jpeg: bytes) -> None:
    assert compute(make_stage(classifier_uri, out_stride=1), jpeg, [1]).shape == (1, 61, 83)


def test_a_class_has_its_own_channel(stage: ComputeCams, jpeg: bytes) -> None:
    both = compute(stage, jpeg, [1, 2])
    np.testing.assert_array_equal(compute(stage, jpeg, [2]), both[1:])


def test_mirrored_image_has_mirrored_maps(stage: ComputeCams) -> None:
    # Width a multiple of 16, so that the padding is none at both scales.
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC)
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    maps = []
    for picture in (image, flipped):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        maps.append(compute(stage, buffer.getvalue(), [1, 2]))
    np.testing.assert_allclose(maps[1], maps[0][..., ::-1], atol=2e-3)


def test_maps_of_a_classifier_taught_by_saliency(tmp_path: Path, jpeg: bytes) -> None:
    """The checkpoint says of which kind it is; its maps are probabilities, which a rival class lowers."""
    network = build_saliency_classifier("tiny", num_classes=2)
    network.fc8.weight.data[1] = network.fc8.weight.data[0]
    checkpoint = Checkpoint(
        task="classifier",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"saliency": "eps++"}},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, str(tmp_path))
    cam = compute(make_stage(str(tmp_path)), jpeg, [1, 2])
    np.testing.assert_array_equal(cam[0], cam[1])
    assert cam.min() > 0
    assert cam.max() == pytest.approx(1, abs=1e-3)


def test_maps_of_a_refitted_checkpoint_are_the_softmax_of_its_layer_alone(tmp_path: Path, jpeg: bytes) -> None:
    """Scores log 1, log 2 and log 5 of background, cat and dog everywhere: no constant of the code changes them."""
    network = build_classifier("tiny", num_classes=2)
    layer = network.add_refit()
    layer.weight.data.zero_()
    assert layer.bias is not None
    layer.bias.data = torch.tensor([1.0, 2.0, 5.0]).log()
    checkpoint = Checkpoint(
        task="classifier",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={"refit": {}},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, str(tmp_path))
    stage = make_stage(str(tmp_path))
    for class_ids, expected in (([1, 2], [2 / 8, 5 / 8]), ([2], [5 / 6])):
        cam = compute(stage, jpeg, class_ids)
        np.testing.assert_allclose(cam, np.broadcast_to(np.reshape(expected, (-1, 1, 1)), cam.shape), atol=1e-3)


def test_no_labels_no_maps(stage: ComputeCams, jpeg: bytes) -> None:
    assert compute(stage, jpeg, []).shape == (0, 16, 21)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 3)])
def test_tiny_images(stage: ComputeCams, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, format="PNG")
    cam = compute(stage, buffer.getvalue(), [1])
    assert cam.shape == (1, -(-size[1] // 4), -(-size[0] // 4))
    assert np.isfinite(cam).all()


def test_same_bytes_every_time(stage: ComputeCams, jpeg: bytes) -> None:
    first, second = (stage.process({"image": jpeg, "class_ids": [1]})["cam"] for _ in range(2))
    assert first == second


def test_stage_declares_what_it_writes(stage: ComputeCams, jpeg: bytes) -> None:
    out = stage(pa.table({"image": [jpeg], "class_ids": pa.array([[1]], pa.list_(pa.uint8()))}))
    assert out["error_stage"].to_pylist() == [None]
    assert set(ComputeCams.writes.names) <= set(out.column_names)


def test_checkpoint_of_another_task_is_refused(affinity_uri: str) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint of task 'classifier', got one of 'affinity'"):
        make_stage(affinity_uri)


def test_maps_that_are_not_finite_are_an_error_of_their_row(classifier_uri: str, jpeg: bytes) -> None:
    stage = make_stage(classifier_uri)
    stage.pixels_per_pass = 10**6
    stage.network.fc8.weight.data[1] = torch.nan
    good, bad = stage.process_all([{"image": jpeg, "class_ids": [class_id]} for class_id in (1, 2)])
    assert good["cam"]
    assert "hold NaN or infinity" in bad["error_reason"]
