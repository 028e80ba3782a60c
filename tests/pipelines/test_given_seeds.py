"""What follows given seeds: trimaps, gates, masks, sweep, explanation; the networks are random ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.pages.curves import collect_sweeps
from raypipe.pages.explain import explain, manifest_row
from raypipe.pages.finished import find_masks
from raypipe.pipelines.context import open_context
from raypipe.pipelines.gate import NO_CLASSIFIER, PARTIAL
from raypipe.pipelines.imports.seeds import import_seeds
from raypipe.run import Run
from raypipe.schema import MASKS, SEEDS
from raypipe.streams.collect import outputs_of, quarantined

pytestmark = pytest.mark.usefixtures("in_this_process")

LABELS = {"both": ["cat", "dog"], "dog": ["dog"], "empty": [], "late": ["cat"]}


def scribbles(*names: str) -> dict[str, Any]:
    """A stroke of each class from top to bottom, and one of the background; the image is 61 x 83."""
    maps = np.full((len(names), 61, 83), np.nan, np.float32)
    for stroke in range(len(names) + 1):
        maps[:, :, 10 + 30 * stroke : 12 + 30 * stroke] = 0
        if stroke < len(names):
            maps[stroke, :, 10 + 30 * stroke : 12 + 30 * stroke] = 1
    return {"classes": list(names), "maps": maps}


def complete(*names: str) -> dict[str, Any]:
    """A left half and a right one on a coarse grid."""
    maps = np.zeros((len(names), 4, 6), np.float32)
    for index in range(len(names)):
        maps[index, :, 3 * index : 3 * index + 2] = 0.9
    return {"classes": list(names), "maps": maps}


class Made:
    """A manifest, seeds of it and a run."""

    def __init__(self, folder: Path, jpeg: bytes, affinity: str) -> None:
        self.folder, self.affinity = folder, affinity
        (folder / "image.jpg").write_bytes(jpeg)
        rows = [
            {"image_id": name, "image_uri": str(folder / "image.jpg"), "labels": labels, "split": "train"}
            for name, labels in LABELS.items()
        ]
        write_manifest(Manifest.from_rows(rows, ("cat", "dog")), str(folder / "m.parquet"))
        (folder / "maps").mkdir()

    def seeds(self, **of_images: dict[str, Any]) -> None:
        for name, arrays in of_images.items():
            np.savez(self.folder / f"maps/{name}.npz", **arrays)
        import_seeds(str(self.folder / "maps"), str(self.folder / "m.parquet"), str(self.folder / "seeds"))

    def run(self, *options: str) -> Run:
        given = [
            *(f"manifest={self.folder}/m.parquet", f"out={self.folder}/out", f"checkpoints.seeds={self.folder}/seeds"),
            *(f"checkpoints.affinity={self.affinity}", "affinity.start=pretrained", "walk.num_steps=20"),
            *("walk.alpha=4", "images.max_side=64", "budget.max_rows=2", *options),
        ]
        return Run(open_context(load_config("", given)))


@pytest.fixture
def made(tmp_path: Path, jpeg: bytes, affinity_uri: str) -> Made:
    return Made(tmp_path, jpeg, affinity_uri)


def test_scribbles_become_masks(made: Made) -> None:
    made.seeds(both=scribbles("cat", "dog"), dog=scribbles("dog"))
    run = made.run()
    rows = run.context.rows(None)
    seeds = {row["image_id"]: row for row in outputs_of(run.make_seeds(), rows, SEEDS).to_pylist()}
    assert set(seeds) == {"both", "dog", "empty"}
    trimap = decode_mask(seeds["both"]["trimap"])
    assert {*trimap.ravel().tolist()} == {0, 1, 2, 255}
    labelled = (trimap != 255).any(axis=0)
    assert 3 <= labelled.sum() <= 6, "the strokes' columns, and no other"
    cam = decode_cam(seeds["both"]["cam"], height=seeds["both"]["cam_height"], width=seeds["both"]["cam_width"])
    assert np.isnan(cam).any()

    masks = {row["image_id"]: row for row in outputs_of(run.make_masks(), rows, MASKS).to_pylist()}
    assert set(masks) == {"both", "dog", "empty"}
    mask = decode_mask(masks["both"]["mask"])
    assert [mask[30, column] for column in (11, 41, 71)] == [1, 2, 0]
    assert (decode_mask(masks["empty"]["mask"]) == 0).all()
    assert 0 <= masks["both"]["predicted_iou"] <= 1
    (late,) = quarantined(run.make_masks(), rows).to_pylist()
    assert (late["image_id"], late["error_stage"]) == ("late", "FitSeeds")

    walk, refined = run.decide_gates().decisions
    assert (walk.kept, walk.reason, walk.num_images) == (True, PARTIAL, 0)
    assert (refined.refinement, refined.kept, refined.reason) == ("dcrf", True, NO_CLASSIFIER)
    text = Path(run.report(num_samples=1)).read_text()
    assert f"{made.folder}/seeds, of {made.folder}/maps" in text
    assert "not judged, so it stays as configured" in text
    for name in ("both", "dog"):
        found = explain(find_masks(run.context), manifest_row(run.context, name))
        assert found.num_different == 0


def test_complete_maps_are_judged_as_a_classifiers_are(made: Made, classifier_uri: str) -> None:
    made.seeds(both=complete("cat", "dog"), dog=complete("dog"), late=complete("cat"))
    walk, refined = made.run().decide_gates().decisions
    assert (walk.num_images, walk.judge) == (3, "objective")
    assert refined.reason == NO_CLASSIFIER
    walk, refined = made.run(f"checkpoints.classifier={classifier_uri}").decide_gates().decisions
    assert (walk.num_images, refined.num_images, refined.judge) == (3, 3, "class consistency")


def test_a_class_without_a_map_is_judged_and_a_few_scribbles_keep_the_walk(made: Made) -> None:
    """A rejected walk would leave scribbles as they are, the rest background."""
    made.seeds(both=complete("cat"), dog=complete("dog"), late=complete("cat"))
    (walk, _) = made.run().decide_gates().decisions
    assert walk.num_images == 3
    made.seeds(late=scribbles("cat"))
    (walk, _) = made.run("walk.beta=1").decide_gates().decisions
    assert (walk.num_images, walk.kept, walk.reason) == (2, True, PARTIAL)


def test_the_better_mask_of_an_image_needs_a_judge(made: Made, classifier_uri: str) -> None:
    made.seeds(both=complete("cat", "dog"), dog=scribbles("dog"), late=complete("cat"))
    run = made.run("refinement.gate=image")
    (refined,) = run.decide_gates().decisions
    assert (refined.kept, refined.reason) == (True, NO_CLASSIFIER)
    rows = run.context.rows(None)
    assert outputs_of(run.make_masks(), rows, MASKS).num_rows == 4
    judged = made.run("refinement.gate=image", f"checkpoints.classifier={classifier_uri}")
    assert judged.decide_gates().decisions == []
    assert judged.make_masks().digest != run.make_masks().digest


@pytest.mark.parametrize("first", ["seeds", "masks"])
def test_seeds_that_grow_change_their_own_images(made: Made, first: str) -> None:
    made.seeds(both=complete("cat", "dog"), dog=scribbles("dog"))
    run = made.run()
    if first == "seeds":
        run.make_seeds()
    masks = run.make_masks()
    path = Path(masks.uri, "summary.json")
    assert '"num_computed": 4' in path.read_text()
    made.seeds(late=complete("cat"), dog=scribbles("dog"))
    again = made.run()
    assert again.make_masks() == masks
    assert '"num_computed": 1' in path.read_text()
    assert outputs_of(masks, again.context.rows(None), MASKS).num_rows == 4


def test_a_sweep_of_given_seeds(made: Made) -> None:
    made.seeds(both=complete("cat", "dog"), dog=scribbles("dog"), late=complete("cat"))
    options = ["sweep.alphas=[2,8]", "sweep.betas=[4]", "sweep.steps=[4,8]"]
    result = made.run(*options).sweep()
    assert result.num_images == 4
    assert np.isfinite(result.table["objective"]).all()
    other = made.run(*options)
    other.make_seeds()
    assert other.sweep().folder == result.folder
    made.seeds(late=complete("cat", "dog"))
    assert made.run(*options).sweep().folder != result.folder
    found = collect_sweeps(other.config.out, maps=other.find_maps(), affinity=other.train_affinity())
    assert len(found) == 2


def test_another_makers_seeds_are_other_masks(made: Made, tmp_path: Path) -> None:
    made.seeds(both=complete("cat", "dog"), dog=complete("dog"), late=complete("cat"))
    first = made.run().find_maps()
    (tmp_path / "maps").rename(tmp_path / "other")
    import_seeds(str(tmp_path / "other"), str(tmp_path / "m.parquet"), str(tmp_path / "more"))
    second = made.run(f"checkpoints.seeds={tmp_path}/more").find_maps()
    assert first.digest != second.digest
