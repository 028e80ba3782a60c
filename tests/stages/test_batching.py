import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config import Cams
from raypipe.data.arrays import decode_cam, decode_scores, encode_cam
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.networks import build_classifier, load_weights
from raypipe.networks.preprocessing import TENSORFLOW
from raypipe.ops.random_walk import propagate_batch
from raypipe.stages.batching import in_passes
from raypipe.stages.cams import ComputeCams
from raypipe.stages.propagate import PropagateCams
from raypipe.storage import read_bytes

CAMS: dict[str, Any] = {"cams": Cams(scales=(1.0, 0.5)), "max_side": 1024, "precision": "fp32"}
WALK: dict[str, Any] = {
    "radius": 5,
    "alpha": 4.0,
    "beta": 8.0,
    "num_steps": 16,
    "count_padding": False,
    "precision": "fp32",
    "cam_stride": 4,
    "max_side": 1024,
}


def compute_cams(checkpoint: str, **changes: Any) -> ComputeCams:
    stage = ComputeCams(classifier=Artifact(checkpoint, "c"), **{**CAMS, **changes})
    stage.setup("cpu")
    return stage


def batch_of(*images: bytes, class_ids: list[list[int]] | None = None) -> pa.Table:
    labels = class_ids or [[1, 2]] * len(images)
    return pa.table(
        {"image": pa.array(images, pa.binary()), "class_ids": pa.array(labels, pa.list_(pa.uint8()))}
    ).append_column("error_stage", pa.nulls(len(images), pa.string()))


def photograph(seed: int, size: tuple[int, int]) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()


def test_inputs_of_equal_size_share_passes_up_to_the_limit() -> None:
    seen = []

    def network(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return x.mean(dim=1)

    inputs = [torch.full((1, 3, 8, width), float(i)) for i, width in enumerate((16, 8, 16, 16, 8))]
    outputs = in_passes(network, inputs, pixels_per_pass=2 * 8 * 16)
    assert seen == [(2, 3, 8, 16), (1, 3, 8, 16), (2, 3, 8, 8)]
    assert [output[0, 0, 0].item() for output in outputs] == [0, 1, 2, 3, 4]
    assert [output.shape for output in outputs] == [(1, 8, x.shape[-1]) for x in inputs]


@pytest.mark.parametrize("pixels_per_pass", [None, 1])
def test_no_limit_given_and_too_small_a_limit_pass_inputs_alone(pixels_per_pass: int | None) -> None:
    batches = []
    inputs = [torch.zeros(1, 3, 8, 8)] * 3
    in_passes(lambda x: batches.append(len(x)) or x, inputs, pixels_per_pass=pixels_per_pass)
    assert batches == [1, 1, 1]


def test_no_inputs_no_passes() -> None:
    assert in_passes(lambda x: x, [], pixels_per_pass=10) == []


def test_cams_and_scores_together_are_those_alone(classifier_uri: str, affinity_uri: str) -> None:
    # 61 x 83 and 64 x 88 have the same padded size at scale 1, and not at scale 0.5.
    images = [photograph(0, (83, 61)), photograph(1, (40, 40)), photograph(2, (88, 64)), photograph(3, (83, 61))]
    labels = [[1, 2], [1], [2], []]
    results = []
    for pixels_per_pass in (None, 10**6):
        cams = compute_cams(classifier_uri, pixels_per_pass=pixels_per_pass)
        walk = PropagateCams(affinity=Artifact(affinity_uri, "a"), **WALK, pixels_per_pass=pixels_per_pass)
        walk.setup("cpu")
        table = cams(batch_of(*images, class_ids=labels))
        maps = [decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]) for row in table.to_pylist()]
        scores = [
            decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])
            for row in walk(table).to_pylist()
        ]
        results.append((maps, scores))
    for alone, together in zip(*results, strict=True):
        assert [array.shape for array in alone] == [array.shape for array in together]
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(other, one, atol=2e-3)


def test_a_row_in_error_holds_up_nobody(classifier_uri: str) -> None:
    stage = compute_cams(classifier_uri, pixels_per_pass=10**6)
    table = batch_of(photograph(0, (40, 40)), b"no image", photograph(1, (40, 40)))
    failed_before = pa.array([None, None, "DecodeImages"], pa.string())
    rows = stage(table.set_column(2, "error_stage", failed_before)).to_pylist()
    assert [row["error_stage"] for row in rows] == [None, "ComputeCams", "DecodeImages"]
    assert [row["cam"] is None for row in rows] == [False, True, True]


def test_a_row_that_fails_when_computed_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the walk does on an accelerator, where only the result says that an affinity was NaN."""

    def spoiled(cams: list[Tensor], affinities: list[Tensor], **options: Any) -> list[Tensor]:
        walked = propagate_batch(cams, affinities, **options)
        return [maps * (torch.nan if maps.shape[3] == 8 else 1) for maps in walked]

    cam = encode_cam(np.random.default_rng(0).random((2, 16, 22)).astype(np.float32))
    narrow = encode_cam(np.random.default_rng(1).random((2, 16, 16)).astype(np.float32))
    rows = [
        {"image": photograph(0, (88, 64)), "cam": cam, "class_ids": [1, 2], "cam_height": 16, "cam_width": 22},
        {"image": photograph(1, (64, 64)), "cam": narrow, "class_ids": [1, 2], "cam_height": 16, "cam_width": 16},
        {"image": photograph(2, (88, 64)), "cam": cam, "class_ids": [1, 2], "cam_height": 16, "cam_width": 22},
    ]
    stage = PropagateCams(affinity=None, **WALK, pixels_per_pass=10**6)
    stage.setup("cpu")
    expected = stage.process_all(rows)
    monkeypatch.setattr("raypipe.stages.propagate.propagate_batch", spoiled)
    walked = stage.process_all(rows)
    assert walked[0] == expected[0]
    assert walked[1]["error_stage"] == "PropagateCams"
    assert walked[1]["error_reason"].startswith("ValueError: the walk gave NaN or infinity")
    assert walked[2] == expected[2]


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


class SmallCard:
    """A classifier whose device holds so many pixels at once, mirror images counted, once nothing is kept there."""

    def __init__(self, stage: ComputeCams, most: int, error: RuntimeError = NO_MEMORY, *, kept: bool = False) -> None:
        self.cam, self.most, self.error, self.kept = stage.network.cam, most, error, kept
        self.failed: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        pixels = len(x) * x.shape[2] * x.shape[3]
        if pixels > self.most or self.kept:
            self.kept = False
            self.failed.append(pixels)
            raise self.error
        return self.cam(x)


@pytest.mark.parametrize("pixels_per_pass", [None, 10**6])
@pytest.mark.parametrize(
    "error",
    [
        NO_MEMORY,
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_pass_that_does_not_fit_is_tried_in_parts(
    classifier_uri: str, monkeypatch: pytest.MonkeyPatch, pixels_per_pass: int | None, error: RuntimeError
) -> None:
    """Only the image that doesn't fit alone is quarantined, with its size."""
    table = batch_of(*(photograph(seed, (40, 40)) for seed in range(5)), photograph(5, (160, 120)))
    stage = compute_cams(classifier_uri, pixels_per_pass=pixels_per_pass)
    expected = stage(table).to_pylist()
    card = SmallCard(stage, 4 * 40 * 40, error)
    monkeypatch.setattr(stage.network, "cam", card)
    rows = stage(table).to_pylist()
    for row, one in zip(rows[:5], expected[:5], strict=True):
        assert row["error_stage"] is None
        cams = [decode_cam(each["cam"], height=each["cam_height"], width=each["cam_width"]) for each in (row, one)]
        np.testing.assert_allclose(*cams, atol=2e-3)
    assert rows[5]["error_stage"] == "ComputeCams"
    assert "120 x 160 pixels (height x width) doesn't fit" in rows[5]["error_reason"]
    assert card.failed.count(2 * 160 * 120) >= 2, "freed, and tried once more"


def test_what_fits_once_memory_is_freed_is_no_error(classifier_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = compute_cams(classifier_uri)
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    monkeypatch.setattr(stage.network, "cam", SmallCard(stage, 10**6, kept=True))
    (row,) = stage(batch_of(photograph(0, (40, 40)))).to_pylist()
    assert row["error_stage"] is None
    assert freed == [True]


@pytest.mark.shared_data
def test_throughput_mode_and_bfloat16_agree_with_one_by_one_in_float32(
    voc_root: Path, weights_dir: Path, tmp_path: Path
) -> None:
    """Photographs, ImageNet's weights, 5 random maps: which of them wins a pixel hangs by a hair more than in use."""
    torch.manual_seed(0)
    network = build_classifier("mobilenet_v2", num_classes=5)
    network.preprocessing = TENSORFLOW
    load_weights(network, str(weights_dir / "mobilenet_v2_imagenet.pth"), read=read_bytes)
    checkpoint = Checkpoint(
        task="classifier",
        backbone="mobilenet_v2",
        classes=tuple("abcde"),
        preprocessing=network.preprocessing.to_dict(),
        config={},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, str(tmp_path))
    paths = sorted((voc_root / "JPEGImages").iterdir())[:3]
    table = batch_of(*(path.read_bytes() for path in paths), class_ids=[[1, 2, 3, 4, 5]] * len(paths))
    maps = []
    for changed in ({}, {"pixels_per_pass": 8_000_000}, {"precision": "bf16"}):
        rows = compute_cams(str(tmp_path), **changed)(table).to_pylist()
        cams = [decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]) for row in rows]
        maps.append(np.concatenate([cam.reshape(5, -1) for cam in cams], axis=1))
    alone, together, bf16 = maps
    for fast, agreeing, error in ((together, 0.999, 1e-3), (bf16, 0.95, 0.05)):
        assert (alone.argmax(axis=0) == fast.argmax(axis=0)).mean() >= agreeing
        assert np.linalg.norm(fast - alone) <= error * np.linalg.norm(alone)
