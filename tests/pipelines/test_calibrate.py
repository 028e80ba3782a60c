"""Calibration of masks that are made by hand: right with a known probability that their confidence hides.

So few rows need no Ray, and it isn't started; one test compares with what Ray makes of them.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stream_outputs import write_masks
from typer.testing import CliRunner

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.cli import app
from raypipe.config import load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.pipelines.calibrate import calibration_table, rows_with_truth, run_calibrated, run_calibration
from raypipe.pipelines.context import Context
from raypipe.run import Run, open_run
from raypipe.schema import MASKS
from raypipe.stages.encode import sums_of_classes

HALF = 12
"""Images to calibrate on; as many are left."""


def started(*_: object) -> None:
    pytest.fail("Ray was wanted")


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray isn't there, though other tests may have connected to one, and must not be started."""
    monkeypatch.setattr("raypipe.streams.run.is_connected", lambda: False)
    monkeypatch.setattr("raypipe.cluster.connect.connect", started)


def make_context(manifest: Manifest, out: Path, *overrides: str, start: Callable[[], None] | None = started) -> Context:
    values = [f"out={out}", "manifest=m", f"calibration.num_images={HALF}", "cluster.rows_per_block=8", *overrides]
    return Context(load_config("", values), manifest, start=start)


def corrupted(row: dict[str, str], index: int) -> dict[str, object]:
    """The true mask, wrong in 40 % of the pixels whose confidence is 90 and in 10 % of those where it is 100."""
    rng = np.random.default_rng(index)
    truth = decode_mask(storage.read_bytes(row["mask_uri"]))
    confidence = rng.choice(np.array([90, 100], np.uint8), truth.shape)
    wrong = rng.random(truth.shape) < np.where(confidence == 90, 0.4, 0.1)
    mask = np.where(wrong & (truth != 255), (truth + 1) % 2, truth).astype(np.uint8)
    return {
        "image_id": row["image_id"],
        "height": truth.shape[0],
        "width": truth.shape[1],
        "mask": encode_png(mask),
        "confidence": encode_png(confidence),
        "predicted_iou": 0.5,
        **sums_of_classes(mask, confidence),
    }


@pytest.fixture(scope="module")
def masks(synthetic: tuple[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = str(tmp_path_factory.mktemp("masks"))
    rows = [corrupted(row, index) for index, row in enumerate(synthetic[1].table.to_pylist())]
    return write_masks(folder, rows)


def test_calibrated_masks_say_how_often_they_are_right(
    synthetic: tuple[str, Manifest], masks: Artifact, tmp_path: Path
) -> None:
    context = make_context(synthetic[1], tmp_path, "calibration.max_risk=0.25")
    folder, fitted = run_calibration(context, masks=masks)
    assert fitted.probability[90] == pytest.approx(0.6, abs=0.01)
    assert fitted.probability[100] == pytest.approx(0.9, abs=0.01)
    assert len(fitted.image_ids) == HALF
    assert fitted.measured is not None
    assert fitted.measured.num_images == 24 - HALF
    assert fitted.measured.ece_before > 0.3
    assert fitted.measured.ece < 0.01
    assert fitted.measured.mean_iou["0.8"] > fitted.measured.mean_iou["1"] + 0.02
    assert "0.00" in calibration_table(fitted)
    stored = json.loads(Path(folder.uri, "calibration.json").read_text())
    assert len(stored["probability"]) == 256
    assert stored["masks"] == "m"
    assert run_calibration(context, masks=masks) == (folder, fitted)

    calibrated, summary = run_calibrated(context, masks=masks, confidence_map=fitted)
    assert (summary.num_finished, summary.num_quarantined) == (24, 0)
    before = read_shards(masks.uri + "/shards", schema=MASKS).to_pylist()
    after = read_shards(calibrated.uri + "/shards", schema=MASKS).to_pylist()
    for old, new in zip(before, after, strict=True):
        margin, confidence, mask = (decode_mask(data) for data in (old["confidence"], new["confidence"], new["mask"]))
        assert set(np.unique(confidence)) == {round(255 * fitted.probability[level]) for level in (90, 100)}
        assert (mask[margin == 90] == 255).all()
        assert (mask[margin == 100] == decode_mask(old["mask"])[margin == 100]).all()
        assert sum(new["areas"]) == pytest.approx((mask != 255).mean(), abs=1e-5)
        assert (new["predicted_iou"], new["image_id"]) == (0.5, old["image_id"])
    again, summary = run_calibrated(context, masks=masks, confidence_map=fitted)
    assert (again, summary.num_computed) == (calibrated, 0)
    others = Artifact(masks.uri, "other")
    assert run_calibrated(context, masks=others, confidence_map=fitted)[0] != calibrated


def test_images_are_drawn_by_the_seed_whatever_the_cluster(
    local_ray: None, synthetic: tuple[str, Manifest], masks: Artifact, tmp_path: Path
) -> None:
    shuffled = Manifest(synthetic[1].table.take(list(range(24))[::-1]), synthetic[1].classes)
    contexts = (
        make_context(synthetic[1], tmp_path / "a"),
        make_context(shuffled, tmp_path / "b", "cluster.cpu_actors=2", start=None),
        make_context(synthetic[1], tmp_path / "c", "seed=1"),
    )
    first, again, other = (run_calibration(context, masks=masks)[1] for context in contexts)
    assert first == again
    assert len(first.image_ids) == len(other.image_ids) == HALF
    assert first.image_ids != other.image_ids


def test_broken_truth_is_passed_over_and_all_truth_may_be_used(
    synthetic: tuple[str, Manifest], masks: Artifact, tmp_path: Path
) -> None:
    rows = synthetic[1].table.to_pylist()
    (tmp_path / "broken.png").write_bytes(b"not an image")
    rows[3]["mask_uri"] = str(tmp_path / "broken.png")
    for row in rows[6:]:
        row["mask_uri"] = None
    manifest = Manifest.from_rows(rows, synthetic[1].classes)
    context = make_context(manifest, tmp_path)
    _, fitted = run_calibration(context, masks=masks)
    assert len(fitted.image_ids) == 5
    assert fitted.num_unscored == 1
    assert "ImageError" in fitted.unscored[rows[3]["image_id"]]
    assert fitted.measured is None
    assert "no other image has a true mask" in calibration_table(fitted)
    _, summary = run_calibrated(context, masks=masks, confidence_map=fitted)
    assert summary.num_finished == 24

    _, summary = run_calibrated(context, masks=masks, confidence_map=replace(fitted, num_pixels=1))
    assert summary.num_computed == 0  # the probabilities name the folder, nothing else of the map


def test_the_command_prints_the_folder_and_what_was_measured(
    synthetic: tuple[str, Manifest], masks: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "make_masks", lambda _: masks)
    words = ["calibrate", "-", f"manifest={synthetic[0]}", f"out={tmp_path}", f"calibration.num_images={HALF}"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    (folder,) = (tmp_path / "calibrated").iterdir()
    lines = result.stdout.splitlines()
    assert str(folder) in lines
    assert any(line.startswith(f"measured on {24 - HALF} others") for line in lines)


def test_without_true_masks_nothing_is_computed(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    rows = [row | {"mask_uri": None} for row in synthetic[1].table.to_pylist()]
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), uri)
    with pytest.raises(ValueError, match="calibration learns from those"):
        open_run(load_config("", [f"manifest={uri}", f"out={tmp_path / 'out'}"])).calibrate()
    assert not (tmp_path / "out").exists()


def test_without_true_masks_it_says_what_is_needed(
    synthetic: tuple[str, Manifest], masks: Artifact, tmp_path: Path
) -> None:
    rows = [row | {"mask_uri": None} for row in synthetic[1].table.to_pylist()]
    context = make_context(Manifest.from_rows(rows, synthetic[1].classes), tmp_path, "splits.masks=[val]")
    with pytest.raises(ValueError, match=r"splits.masks=\('val',\) has a true mask .* column mask_uri"):
        rows_with_truth(context)
    with pytest.raises(ValueError, match="no such split: \\['absent'\\]"):
        rows_with_truth(make_context(synthetic[1], tmp_path, "splits.masks=[absent]"))


def test_masks_that_are_not_there_are_named(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no mask could be compared"):
        run_calibration(make_context(synthetic[1], tmp_path), masks=Artifact(str(tmp_path / "absent"), "m"))
