from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.artifacts import Artifact
from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_mask, encode_png
from raypipe.ops.walk_choice import WalkChoice
from raypipe.stages.judge import GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.score_settings import ScoreSettings, sample_truth
from raypipe.stages.walk_scores import Setting

SETTINGS = [Setting(alpha, beta, t, 5) for alpha in (2.0, 16.0) for beta in (4.0, 8.0) for t in (0, 7, 64)]
SIZE = (61, 83)
WALK: dict[str, Any] = {
    "count_padding": False,
    "precision": "fp32",
    "cam_stride": 4,
    "max_side": 1024,
}
"""Of all walks."""


@pytest.fixture
def row(jpeg: bytes, tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    truth = rng.choice(np.array([0, 2, 3, 7, 255], np.uint8), (8, 11)).repeat(8, 0).repeat(8, 1)[: SIZE[0], : SIZE[1]]
    (tmp_path / "truth.png").write_bytes(encode_png(truth))
    return {
        "image_id": "a",
        "image": jpeg,
        "class_ids": [2, 7],
        "cam": encode_cam(rng.random((2, 16, 21)).astype(np.float32)),
        "cam_height": 16,
        "cam_width": 21,
        "height": SIZE[0],
        "width": SIZE[1],
        "original_height": SIZE[0],
        "original_width": SIZE[1],
        "mask_uri": str(tmp_path / "truth.png"),
    }


def score(
    checkpoint: str, row: dict[str, Any], *, stride: Any = 1, settings: Sequence[Setting] = SETTINGS, **changes: Any
) -> Any:
    stage = ScoreSettings(
        settings=tuple(settings),
        stride=stride,
        num_classes=9,
        affinity=Artifact(checkpoint, "a"),
        **{**WALK, "choice": "given", **changes},
    )
    stage.setup("cpu")
    return stage.process(row)


def counts(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i4").reshape(len(SETTINGS), 3)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("choice", ["given", "longer", "any"])
def test_every_setting_counts_the_very_pixels_of_its_own_run(
    affinity_uri: str, row: dict[str, Any], *, choice: WalkChoice, partial: bool
) -> None:
    if partial:  # known along two columns alone
        cam = np.full((2, 16, 21), np.nan, np.float32)
        cam[:, :, 3], cam[:, :, 15] = [[1], [0]], [[0], [1]]
        row["cam"] = encode_cam(cam)
    out = score(affinity_uri, row, choice=choice)
    truth, taken = decode_mask(Path(row["mask_uri"]).read_bytes()), set()
    for index, (alpha, beta, num_steps, radius) in enumerate(SETTINGS):
        affinity = Artifact(affinity_uri, "a")
        walk = PropagateCams(affinity=affinity, alpha=alpha, beta=beta, num_steps=num_steps, radius=radius, **WALK)
        stage = walk if choice == "given" else GateWalk(walk=walk, choice=choice)
        stage.setup("cpu")
        walked = stage.process(row)
        taken.add((walked["walk_alpha"] / alpha, walked["walk_steps"] - num_steps))
        mask = RefineMasks(method="none", max_side=1024).process(row | walked)["labels_array"]
        known = truth != 255
        predicted = [(mask[known] == label).sum() for label in (0, 2, 7)]
        hits = [((mask == label) & (truth == label)).sum() for label in (0, 2, 7)]
        assert counts(out["predicted"])[index].tolist() == predicted
        assert counts(out["hits"])[index].tolist() == hits
    assert (len(taken) > 1) == (choice != "given" and not partial)
    values, pixels = np.unique(truth[truth != 255], return_counts=True)
    assert (out["truth_ids"], out["truth_pixels"]) == (values.tolist(), pixels.tolist())


def test_a_quarter_counts_one_pixel_in_sixteen(affinity_uri: str, row: dict[str, Any]) -> None:
    full, quarter = score(affinity_uri, row), score(affinity_uri, row, stride=4)
    assert quarter["feature_separations"] == full["feature_separations"]
    np.testing.assert_allclose(16 * counts(quarter["predicted"]), counts(full["predicted"]), atol=0.12 * SIZE[0] * 83)


@pytest.mark.parametrize("choice", ["given", "longer", "any"])
def test_separations_are_those_of_each_mask(affinity_uri: str, row: dict[str, Any], *, choice: WalkChoice) -> None:
    together = score(affinity_uri, row, choice=choice)
    for index in (0, 4, 11):
        alone = score(affinity_uri, row, settings=[SETTINGS[index]], choice=choice)
        for name in ("feature_separations", "colour_separations"):
            assert alone[name][0] == pytest.approx(together[name][index], rel=1e-5)


def test_another_radius_is_another_walk(affinity_uri: str, row: dict[str, Any]) -> None:
    near, far = (score(affinity_uri, row, settings=[Setting(4.0, 4.0, 32, radius)]) for radius in (2, 8))
    assert near["feature_separations"] != far["feature_separations"]
    both = score(affinity_uri, row, settings=[Setting(4.0, 4.0, 32, radius) for radius in (2, 8)])
    assert both["feature_separations"] == [*near["feature_separations"], *far["feature_separations"]]


def test_without_truth_nothing_is_counted(affinity_uri: str, row: dict[str, Any]) -> None:
    out = score(affinity_uri, row | {"mask_uri": None})
    assert out["hits"] is out["predicted"] is out["truth_ids"] is None
    assert len(out["feature_separations"]) == len(SETTINGS)


def test_no_label_is_background_in_every_setting(affinity_uri: str, row: dict[str, Any]) -> None:
    out = score(affinity_uri, row | {"class_ids": [], "cam": b""})
    predicted = np.frombuffer(out["predicted"], "<i4")
    truth = decode_mask(Path(row["mask_uri"]).read_bytes())
    assert predicted.tolist() == [(truth != 255).sum()] * len(SETTINGS)
    assert out["colour_separations"] == [0] * len(SETTINGS)


def test_a_true_mask_of_another_size_is_refused(affinity_uri: str, row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the true mask is"):
        score(affinity_uri, row | {"original_height": 60})


def test_truth_is_sampled_at_the_cells_centres() -> None:
    truth = np.arange(40, dtype=np.uint8).reshape(5, 8)
    np.testing.assert_array_equal(sample_truth(truth, size=(5, 8), stride=1), truth)
    np.testing.assert_array_equal(sample_truth(truth, size=(5, 8), stride=4), [[18, 22], [34, 38]])
    half = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(sample_truth(half, size=(2, 2), stride=1), [[5, 7], [13, 15]])


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_walk_that_gave_nan_is_an_error(
    affinity_uri: str, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, with_truth: bool
) -> None:
    def spoiled(scores: torch.Tensor, *_: object, steps: Sequence[int], **__: object) -> torch.Tensor:
        walked = scores.expand(len(steps), *scores.shape).clone()
        walked[-1, 0, 0, 0] = torch.nan
        return walked

    monkeypatch.setattr("raypipe.stages.walk_scores.propagate_at", spoiled)
    with pytest.raises(ValueError, match="the walk gave NaN or infinity"):
        score(affinity_uri, row if with_truth else row | {"mask_uri": None})
