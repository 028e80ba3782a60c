from pathlib import Path

import numpy as np
import pytest
import torch

from raypipe.artifacts import Artifact
from raypipe.data.arrays import encode_cam
from raypipe.networks import build_classifier, network_input
from raypipe.stages.networks import load_classifier
from raypipe.stages.sample_cells import SampleCells, spread_cells


@pytest.fixture(scope="module")
def stage(classifier_uri: str) -> SampleCells:
    made = SampleCells(classifier=Artifact(classifier_uri, "c"), cam_stride=4, max_side=1024, precision="fp32")
    made.setup("cpu")
    return made


def row(jpeg: bytes, cam: np.ndarray, class_ids: list[int]) -> dict[str, object]:
    return {
        "image": jpeg,
        "class_ids": class_ids,
        "cam": encode_cam(cam),
        "cam_height": cam.shape[1],
        "cam_width": cam.shape[2],
    }


def test_features_are_those_of_the_cells(stage: SampleCells, classifier_uri: str, jpeg: bytes) -> None:
    """An image of 61 x 83 pixels has 8 x 11 cells; of 2 x 2 cells of the maps each is the mean."""
    cam = np.zeros((1, 16, 21), np.float32)
    cam[0, 4:6, 6:8] = 1  # the cell in row 2 and column 3
    cam[0, 0:2] = 0.5  # unsure, the whole first row
    found = stage.process(row(jpeg, cam, [2]))
    labels = np.frombuffer(found["cell_labels"], np.uint8)
    assert labels.tolist() == [0] * 16 + [2]
    features = np.frombuffer(found["cell_features"], "<f2").reshape(17, -1).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=2e-3)
    network = load_classifier(classifier_uri, device="cpu")
    pixels = stage.prepare(row(jpeg, cam, [2])).pixels
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
    with torch.inference_mode():
        whole = network.unit_features(x)[0]
    np.testing.assert_allclose(features[-1], whole[:, 2, 3].numpy(), atol=1e-3)
    np.testing.assert_allclose(features[0], whole[:, 1, 0].numpy(), atol=1e-3)


def test_an_image_without_labels_gives_background(stage: SampleCells, jpeg: bytes) -> None:
    found = stage.process(row(jpeg, np.zeros((0, 16, 21), np.float32), []))
    assert set(found["cell_labels"]) == {0}


def test_maps_that_are_unsure_everywhere_give_nothing(stage: SampleCells, jpeg: bytes) -> None:
    found = stage.process(row(jpeg, np.full((1, 16, 21), 0.5, np.float32), [1]))
    assert found == {"cell_labels": b"", "cell_features": b""}


def test_cells_are_spread_evenly() -> None:
    labels = np.array([0, 0, 0, 255, 0, 0, 3, 255], np.uint8)
    assert spread_cells(labels, number=3).tolist() == [0, 2, 5, 6]
    assert spread_cells(np.full(4, 255, np.uint8), number=3).tolist() == []


def test_a_network_has_no_second_layer_unless_it_is_given_one(tmp_path: Path) -> None:
    network = build_classifier("tiny", num_classes=2)
    assert network.refit is None
    assert network.add_refit().weight.shape == (3, network.backbone.channels[network.backbone.last_depth], 1, 1)
