from typing import Any

import numpy as np
import pytest
import torch

from raypipe.artifacts import Artifact
from raypipe.networks import build_classifier, network_input
from raypipe.ops.cam import normalize_cams
from raypipe.ops.refit import EMPTY, SURE
from raypipe.stages.networks import load_classifier
from raypipe.stages.sample_cells import RefitSettings, SampleCells, spread_cells


@pytest.fixture(scope="module")
def stage(classifier_uri: str) -> SampleCells:
    return stage_of(classifier_uri, RefitSettings())


def stage_of(classifier_uri: str, settings: RefitSettings) -> SampleCells:
    classifier = Artifact(classifier_uri, "c")
    made = SampleCells(classifier=classifier, max_side=1024, precision="fp32", settings=settings)
    made.setup("cpu")
    return made


def row(jpeg: bytes, class_ids: list[int]) -> dict[str, Any]:
    return {"image": jpeg, "class_ids": class_ids}


def test_cells_are_labelled_by_the_image_s_own_map_and_have_the_features_beside_it(
    stage: SampleCells, classifier_uri: str, jpeg: bytes
) -> None:
    found = stage.process(row(jpeg, [2]))
    labels = np.frombuffer(found["cell_labels"], np.uint8)
    features = torch.from_numpy(
        np.frombuffer(found["cell_features"], "<f2").reshape(len(labels), -1).astype(np.float32)
    )
    assert set(labels) == {0, 2}
    assert all(np.count_nonzero(labels == label) <= 16 for label in (0, 2))

    network = load_classifier(classifier_uri, device="cpu")
    pixels = stage.prepare(row(jpeg, [2])).pixels
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
    with torch.inference_mode():
        both = network.maps_and_features(x)[0]
        map_of_class = normalize_cams(network.cam(x)[0, [1]])[0].flatten()
    of_cells = both[2:].flatten(1).T
    torch.testing.assert_close(of_cells.norm(dim=1), torch.ones(len(of_cells)))
    for label, drawn in zip(labels, features, strict=True):
        cell = (of_cells - drawn).norm(dim=1).argmin()
        torch.testing.assert_close(of_cells[cell], drawn, atol=1e-3, rtol=0)
        assert map_of_class[cell] > SURE if label else map_of_class[cell] <= EMPTY


def test_settings_say_which_cells_are_sure_and_how_many_are_drawn(classifier_uri: str, jpeg: bytes) -> None:
    settings = RefitSettings(sure=1.0, empty=0.1, cells_per_label=2)
    found = stage_of(classifier_uri, settings).process(row(jpeg, [2]))
    assert list(found["cell_labels"]) == [0, 0], "no map exceeds 1"


def test_an_image_without_labels_gives_background(stage: SampleCells, jpeg: bytes) -> None:
    assert set(stage.process(row(jpeg, []))["cell_labels"]) == {0}


def test_cells_are_spread_evenly() -> None:
    labels = np.array([0, 0, 0, 255, 0, 0, 3, 255], np.uint8)
    assert spread_cells(labels, number=3).tolist() == [0, 2, 5, 6]
    assert spread_cells(np.full(4, 255, np.uint8), number=3).tolist() == []


def test_a_network_has_no_second_layer_unless_it_is_given_one() -> None:
    network = build_classifier("tiny", num_classes=2)
    assert network.refit is None
    assert network.add_refit().weight.shape == (3, network.backbone.channels[network.backbone.last_depth], 1, 1)
