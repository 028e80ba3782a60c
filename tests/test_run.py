"""The whole pipeline on a local Ray: small, but every part is real."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.config import RunConfig, load_config, to_yaml
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.pages.explain import explain, manifest_row
from raypipe.pages.finished import find_masks
from raypipe.pipelines.context import open_context
from raypipe.pipelines.imports.seeds import import_seeds
from raypipe.pipelines.score_tables import scores_table
from raypipe.run import Run, open_run
from raypipe.schema import MASKS, QUARANTINE, SEEDS
from raypipe.status.look import look
from raypipe.status.text import announcement, closing

OVERRIDES = [
    "classifier.epochs=2",
    "classifier.crop_size=96",
    "classifier.long_side=[96,128]",
    "affinity.epochs=1",
    "segmenter.enabled=false",
    "affinity.crop_size=96",
    "cams.scales=[1.0]",
    "refinement.gate=off",
]


def make_config(manifest: str, out: Path, *overrides: str) -> RunConfig:
    return load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *OVERRIDES, *overrides])


@pytest.fixture(scope="module")
def finished(local_ray: None, synthetic: tuple[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A complete run."""
    run = open_run(make_config(synthetic[0], tmp_path_factory.mktemp("run")))
    assert run.report(num_samples=1)
    return run


def test_every_image_has_a_mask_of_its_size(finished: Run, synthetic: tuple[str, Manifest]) -> None:
    rows = read_shards(finished.make_masks().uri + "/shards", schema=MASKS).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(synthetic[1].table["image_id"].to_pylist())
    for row in rows:
        mask = decode_mask(row["mask"])
        assert mask.shape == (row["height"], row["width"])
        assert sorted(np.unique(mask).tolist()) == row["class_ids"]
        assert sum(row["areas"]) == pytest.approx(1, abs=1e-5)


def test_masks_hold_labelled_classes_only(finished: Run, synthetic: tuple[str, Manifest]) -> None:
    labels = {row["image_id"]: row["labels"] for row in synthetic[1].table.to_pylist()}
    for row in read_shards(finished.make_masks().uri + "/shards", schema=MASKS).to_pylist():
        names = {finished.context.classes[class_id - 1] for class_id in row["class_ids"] if class_id}
        assert names <= set(labels[row["image_id"]])


def test_shards_are_readable_without_raypipe(finished: Run) -> None:
    pattern = finished.make_masks().uri + "/shards/*/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall() == [(24,)]  # noqa: S608 - a path of ours
    file = next(Path(finished.make_masks().uri).glob("shards/*/*.parquet"))
    assert {"image_id", "mask", "class_ids"} <= set(pd.read_parquet(file).columns)


def test_provenance_is_in_every_shard(finished: Run) -> None:
    import pyarrow.parquet as pq

    file = next(Path(finished.make_masks().uri).glob("shards/*/*.parquet"))
    metadata = pq.read_schema(file).metadata
    assert tuple(json.loads(metadata[b"raypipe.classes"])) == finished.context.classes
    assert json.loads(metadata[b"raypipe.provenance"])["stages"][2]["classifier"] == finished.train_classifier().digest


def test_scores_of_every_stage_and_split(finished: Run) -> None:
    found = {(score.stage, score.split): score for score in finished.evaluate()[1]}
    assert set(found) == {(stage, split) for stage in ("cam", "walk", "dcrf") for split in ("train", "val")}
    assert found["cam", "train"].num_images + found["cam", "val"].num_images == 24
    assert all(0 <= score.mean_iou <= 1 for score in found.values())
    assert found["walk", "val"].truth_digest == found["dcrf", "val"].truth_digest
    assert "dcrf" in scores_table(finished.evaluate()[1])


def test_report_is_one_file(finished: Run) -> None:
    text = Path(finished.config.out, "report.html").read_text()
    assert "data:image/" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_status_of_a_finished_run(finished: Run) -> None:
    finished.evaluate()
    found = look(open_context(finished.config))
    assert announcement(found) == "everything is done"
    masks, *_, time, report = closing(found)
    assert masks == "masks: 24 of 24 images, none quarantined"
    assert any(line.startswith("labels: label mAP") for line in closing(found))
    assert time.startswith("time: ")
    assert not time.startswith("time: 0 ")
    assert report.endswith("report.html")
    assert found.last_masks is not None
    other = finished.config.model_copy(update={"walk": finished.config.walk.model_copy(update={"beta": 3.0})})
    assert announcement(look(open_context(other))) == "walk.beta 8 → 3: masks and scores again, 24 images"
    renewed = look(replace(open_context(finished.config), retrain="all"))
    assert announcement(renewed) == "everything is done", "there is nothing new to learn"


def test_review_queues_masks_by_the_command(finished: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(finished.config))
    result = CliRunner().invoke(app, ["review", str(config), "--count", "3"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[-1]
    assert line.startswith("3 masks to review")
    assert Path(line.rsplit(": ", 1)[1]).read_text().count('<li class="card"') == 3


def test_nothing_of_a_finished_run_that_is_only_looked_at_starts_ray(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(_: object) -> None:
        raise AssertionError("Ray is asked for")

    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(finished.config))
    monkeypatch.setattr("raypipe.cluster.connect.connect", connect)
    monkeypatch.setattr("raypipe.pipelines.context.is_connected", lambda: False)
    for command in (["review", "--count", "2"], ["report", "--samples", "1"]):
        result = CliRunner().invoke(app, [command[0], str(config), *command[1:]], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "nothing was computed" in Path(finished.config.out, "report.html").read_text()
    with pytest.raises(AssertionError, match="Ray is asked for"):
        CliRunner().invoke(app, ["report", str(config), "walk.num_steps=2"], catch_exceptions=False)


def test_explanation_ends_in_the_mask_that_the_run_wrote(finished: Run) -> None:
    """Networks that were trained here, maps from seeds: what many processes made comes out of this one."""
    masks = find_masks(open_context(finished.config))
    assert masks.masks == finished.make_masks()
    rows = read_shards(finished.make_masks().uri + "/shards", schema=MASKS).to_pylist()
    for row in rows[:3]:
        explanation = explain(masks, manifest_row(finished.context, row["image_id"]))
        assert explanation.mask_png == row["mask"]
        assert explanation.predicted_iou == row["predicted_iou"]
        assert explanation.num_different == 0


def test_metrics_of_both_trainings_are_kept(finished: Run) -> None:
    assert finished.train_affinity() is not None
    for artifact, epochs in ((finished.train_classifier(), 2), (finished.train_affinity(), 1)):
        folder = Path(artifact.uri).parent
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        assert [each["epoch"] for each in metrics] == list(range(epochs))
        assert not any(each["num_unreadable"] for each in metrics), "images, and trimaps in their shards"
        assert list((folder / "tensorboard").iterdir())


def test_same_command_again_computes_nothing(finished: Run) -> None:
    again = open_run(finished.config)
    before = {path: path.stat().st_mtime_ns for path in Path(finished.config.out).rglob("*.parquet")}
    assert again.make_masks() == finished.make_masks()
    assert {path: path.stat().st_mtime_ns for path in Path(finished.config.out).rglob("*.parquet")} == before


def test_another_beta_runs_the_walk_alone_and_without_seeds_gives_the_same_masks(finished: Run, tmp_path: Path) -> None:
    """CAMs read from seed shards and CAMs computed in the masks' stream, with other actors, make equal bytes."""
    assert finished.train_affinity() is not None
    other = open_run(finished.config.model_copy(update={"walk": finished.config.walk.model_copy(update={"beta": 2.0})}))
    assert other.train_classifier() == finished.train_classifier()
    assert other.make_masks() != finished.make_masks()
    assert load_config(Path(finished.config.out, "config.yaml").read_text()) == finished.config  # the report's

    fresh = make_config(
        finished.config.manifest,
        tmp_path,
        f"checkpoints.classifier={finished.train_classifier().uri}",
        f"checkpoints.affinity={finished.train_affinity().uri}",
        "cluster.network_actors=2",
        "cluster.cpu_actors=1",
        "cluster.rows_per_block=5",
    )
    columns = ["image_id", "mask", "confidence", "walk_mask"]
    masks = [
        read_shards(run.make_masks().uri + "/shards", columns=columns, schema=MASKS).to_pylist()
        for run in (finished, open_run(fresh))
    ]
    assert masks[0] == masks[1]
    assert not (tmp_path / "seeds").exists()


def test_rows_that_fail_are_quarantined_and_the_run_goes_on(
    finished: Run, synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    rows = synthetic[1].table.slice(0, 8).to_pylist()
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    rows[1]["image_uri"] = str(tmp_path / "broken.jpg")
    rows[2]["image_uri"] = str(tmp_path / "absent.jpg")
    rows[3]["labels"] = None
    rows[4]["labels"] = ["unicorn"]
    rows[5]["labels"] = []
    rows[6]["image_id"] = "../odd id/ü"
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), uri)
    run = open_run(
        make_config(
            uri,
            tmp_path / "out",
            "splits.masks=null",
            "walk.affinity=rgb",
            f"checkpoints.classifier={finished.train_classifier().uri}",
        )
    )
    masks = read_shards(run.make_masks().uri + "/shards", schema=MASKS).to_pylist()
    quarantine = read_shards(run.make_masks().uri + "/quarantine", schema=QUARANTINE).to_pylist()
    assert len(masks) + len(quarantine) == 8
    reasons = {row["image_id"]: row["reason"] for row in quarantine}
    for index, reason in ((1, "ImageError"), (2, "FileNotFound"), (3, "labels are null"), (4, "UnknownLabel")):
        assert reason in reasons[rows[index]["image_id"]]
    background = next(row for row in masks if row["image_id"] == rows[5]["image_id"])
    assert background["class_ids"] == [0]


def test_checkpoint_of_other_classes_is_refused(
    local_ray: None, synthetic: tuple[str, Manifest], classifier_uri: str, tmp_path: Path
) -> None:
    run = open_run(make_config(synthetic[0], tmp_path, f"checkpoints.classifier={classifier_uri}"))
    with pytest.raises(ValueError, match=r"was trained for classes \['cat', 'dog'\]"):
        run.train_classifier()


@pytest.mark.slow
def test_a_walk_along_frozen_features_trains_nothing_and_is_judged(finished: Run, tmp_path: Path) -> None:
    classifier = f"checkpoints.classifier={finished.train_classifier().uri}"
    frozen = ["walk.affinity=frozen", "affinity.start=classifier", classifier]
    frozen += ["refinement.gate=run", "refinement.method=none"]
    run = open_run(make_config(finished.config.manifest, tmp_path / "out", *frozen))
    assert run.report(num_samples=1)
    assert not (tmp_path / "out/seeds").exists()
    assert len(list((tmp_path / "out/samples").iterdir())) == 1, (
        "the report's maps, which the masks' stream kept none of"
    )
    found = find_masks(run.context)
    assert found.affinity == run.train_affinity()
    (decision,) = found.decisions
    assert decision.refinement == "walk"
    assert decision.num_images > 0
    image_id = read_shards(found.masks.uri + "/shards", columns=["image_id"], schema=MASKS)["image_id"][0].as_py()
    assert explain(found, manifest_row(run.context, image_id)).num_different == 0


@pytest.mark.slow
def test_given_seeds_take_the_classifiers_place(finished: Run, tmp_path: Path) -> None:
    """The run's own maps, given as another program's: its trimaps, and no classifier is trained."""
    (tmp_path / "maps").mkdir()
    for row in read_shards(finished.make_seeds().uri + "/shards", schema=SEEDS).to_pylist():
        cam = decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])
        names = [finished.context.classes[class_id - 1] for class_id in row["class_ids"]]
        np.savez(tmp_path / "maps" / row["image_id"], classes=names, maps=cam)
    import_seeds(str(tmp_path / "maps"), finished.config.manifest, str(tmp_path / "seeds"))
    given = f"checkpoints.seeds={tmp_path / 'seeds'}"
    more = [given, "affinity.start=pretrained", "refinement.gate=run"]
    run = open_run(make_config(finished.config.manifest, tmp_path / "out", *more))
    assert "not judged" in Path(run.report(num_samples=1)).read_text()
    assert not (tmp_path / "out/classifier").exists()
    trimaps = [
        np.concatenate([decode_mask(trimap).ravel() for trimap in shards["trimap"].to_pylist() if trimap is not None])
        for shards in (
            read_shards(folder + "/shards", columns=["image_id", "trimap"], schema=SEEDS)
            for folder in (finished.make_seeds().uri, run.make_seeds().uri)
        )
    ]
    assert np.mean(trimaps[0] == trimaps[1]) > 0.9
    image_id = read_shards(run.make_masks().uri + "/shards", columns=["image_id"], schema=MASKS)["image_id"][0].as_py()
    assert explain(find_masks(run.context), manifest_row(run.context, image_id)).num_different == 0
