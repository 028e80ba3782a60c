"""Every stage that runs a network, on a device that isn't the CPU: nothing is mixed, and the rows are the CPU's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import DEVICE, fake_device

from raypipe.artifacts import Artifact
from raypipe.config import Cams, Trimaps
from raypipe.data.arrays import encode_cam, encode_scores
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.data.images import encode_png
from raypipe.networks import build_saliency_classifier, build_segmenter
from raypipe.stages.base import Row, Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.encode import sums_of_classes
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine_on_device import RefineOnDevice
from raypipe.stages.score_settings import ScoreSettings
from raypipe.stages.segment import SegmentImages
from raypipe.stages.store_cells import StoreCells
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice
from raypipe.stages.walk_scores import Setting

SIZE = (61, 83)
IMAGES: dict[str, Any] = {"max_side": 1024, "precision": "fp32"}
WALK: dict[str, Any] = {"count_padding": False, "cam_stride": 4, **IMAGES}
ONE: dict[str, Any] = {"alpha": 4.0, "beta": 8.0, "num_steps": 16, "radius": 5, **WALK}
SETTINGS = tuple(Setting(alpha, beta, t, 5) for alpha in (2.0, 16.0) for beta in (4.0, 8.0) for t in (0, 7))

ARRAYS = {"cam": "<f2", "scores": "<f4"}
"""Columns of bytes that are numbers."""

Uris = dict[str, str]


@pytest.fixture(scope="module")
def uris(classifier_uri: str, affinity_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Uris:
    """Networks with random weights."""
    torch.manual_seed(0)
    networks: list[tuple[str, Task, Any, dict[str, str]]] = [
        ("segmenter", "segmenter", build_segmenter("tiny", head="deeplabv3", num_classes=2), {"head": "deeplabv3"}),
        ("eps", "classifier", build_saliency_classifier("tiny", num_classes=2), {"saliency": "eps"}),
    ]
    uris = {"classifier": classifier_uri, "affinity": affinity_uri}
    for name, task, network, section in networks:
        uris[name] = str(tmp_path_factory.mktemp(name))
        checkpoint = Checkpoint(
            task=task,
            backbone="tiny",
            classes=("cat", "dog"),
            preprocessing=network.preprocessing.to_dict(),
            config={"section": section},
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, uris[name])
    return uris


STAGES: dict[str, Callable[[Uris, int | None], Stage]] = {
    "ComputeCams": lambda uris, pixels: ComputeCams(
        classifier=Artifact(uris["classifier"], "c"), cams=Cams(scales=(1.0, 0.5)), pixels_per_pass=pixels, **IMAGES
    ),
    "ComputeCams, taught by saliency": lambda uris, pixels: ComputeCams(
        classifier=Artifact(uris["eps"], "c"),
        cams=Cams(scales=(1.0,), out_stride=1),
        pixels_per_pass=pixels,
        **IMAGES,
    ),
    "PropagateCams": lambda uris, pixels: PropagateCams(
        affinity=Artifact(uris["affinity"], "a"), pixels_per_pass=pixels, **ONE
    ),
    "PropagateCams along colours": lambda _, pixels: PropagateCams(affinity=None, pixels_per_pass=pixels, **ONE),
    "GateWalk": lambda uris, pixels: GateWalk(
        walk=PropagateCams(affinity=Artifact(uris["affinity"], "a"), **ONE), choice="any", pixels_per_pass=pixels
    ),
    "GateMasks": lambda uris, pixels: GateMasks(
        classifier=Artifact(uris["classifier"], "c"),
        classes=("cat", "dog"),
        keep_better=True,
        pixels_per_pass=pixels,
        **IMAGES,
    ),
    "ScoreSettings": lambda uris, pixels: ScoreSettings(
        affinity=Artifact(uris["affinity"], "a"),
        settings=SETTINGS,
        stride=4,
        choice="any",
        num_classes=3,
        pixels_per_pass=pixels,
        **WALK,
    ),
    "StoreCells": lambda uris, pixels: StoreCells(
        affinity=Artifact(uris["affinity"], "a"), radius=5, pixels_per_pass=pixels, **IMAGES
    ),
    "RefineOnDevice, dense CRF": lambda _, pixels: RefineOnDevice(
        method="dcrf", power=2.0, max_side=1024, pixels_per_pass=pixels
    ),
    "RefineOnDevice, PAMR": lambda _, pixels: RefineOnDevice(
        method="pamr", power=1.0, max_side=1024, pixels_per_pass=pixels
    ),
    "MakeTrimapsOnDevice": lambda _, pixels: MakeTrimapsOnDevice(
        splits=None, trimaps=Trimaps(crf_stride=2), cam_stride=4, max_side=1024, pixels_per_pass=pixels
    ),
    "SegmentImages": lambda uris, pixels: SegmentImages(
        segmenter=Artifact(uris["segmenter"], "s"), scales=(1.0, 0.5), pixels_per_pass=pixels, **IMAGES
    ),
}


@pytest.fixture
def rows(jpeg: bytes, tmp_path: Path) -> list[Row]:
    """Three images with all that the stages read; one of them has no labels."""
    rng = np.random.default_rng(0)
    masks = [rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 11)).repeat(8, 0).repeat(8, 1) for _ in range(2)]
    mask, walk_mask = (mask[: SIZE[0], : SIZE[1]] for mask in masks)
    (tmp_path / "truth.png").write_bytes(encode_png(mask))
    confidence = np.full_like(mask, 200)
    row: Row = {
        "image_id": "a",
        "image": jpeg,
        "labels": ["cat", "dog"],
        "cam": encode_cam(rng.random((2, 16, 21)).astype(np.float32)),
        "cam_height": 16,
        "cam_width": 21,
        "scores": encode_scores(rng.random((3, 8, 11)).astype(np.float32)),
        "grid_height": 8,
        "grid_width": 11,
        "split": "train",
        "height": SIZE[0],
        "width": SIZE[1],
        "original_height": SIZE[0],
        "original_width": SIZE[1],
        "mask_uri": str(tmp_path / "truth.png"),
        "mask": encode_png(mask),
        "walk_mask": encode_png(walk_mask),
        "confidence": encode_png(confidence),
        **sums_of_classes(mask, confidence),
        "class_ids": [1, 2],
    }
    background = encode_scores(np.ones((1, 8, 11), np.float32))
    unlabelled = row | {"image_id": "b", "class_ids": [], "labels": [], "cam": b"", "scores": background}
    return [row, unlabelled, row | {"image_id": "c"}]


@pytest.mark.parametrize("pixels_per_pass", [None, 10**6])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_gives_the_rows_of_the_cpu(uris: Uris, rows: list[Row], name: str, pixels_per_pass: int | None) -> None:
    stage = STAGES[name](uris, pixels_per_pass)
    expected = run(stage, rows, "cpu")
    with fake_device() as waits:
        computed = run(stage, rows, DEVICE.type)
    assert not waits["a list as index"]
    assert waits["a copy to the CPU"] + waits["_local_scalar_dense"] or "colours" in name, "nothing was computed there"
    for row, other in zip(computed, expected, strict=True):
        assert row.get("error_reason") is None
        for column in stage.writes:
            assert_same(column.name, row[column.name], other[column.name])


def run(stage: Stage, rows: list[Row], device: str) -> list[Row]:
    stage.setup(device)
    return stage.process_all(rows)


def assert_same(name: str, value: Any, expected: Any) -> None:
    """Numbers may differ in rounding: the walk and affinities of a device are summed in another order."""
    if name in ARRAYS:
        arrays = [np.frombuffer(data, ARRAYS[name]) for data in (value, expected)]
        np.testing.assert_allclose(*arrays, rtol=1e-3, atol=1e-5)
    elif isinstance(expected, float | list):
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)
    else:
        assert value == expected
