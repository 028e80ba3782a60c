"""The report of a run that is made up: no Ray, no training."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream_outputs import write_outputs, write_quarantine
from tiny_networks import write_tiny

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.config.stages import Walk
from raypipe.data.arrays import encode_cam
from raypipe.data.images import encode_png, read_shape
from raypipe.data.manifest import Manifest
from raypipe.outputs import load
from raypipe.outputs.load import held
from raypipe.pages.counts import (
    OTHERS,
    count_labels,
    count_quarantined,
    count_walks,
    final_confusions,
    reason_kind,
)
from raypipe.pages.curves import collect_risks, collect_sweeps
from raypipe.pages.provenance import provenance
from raypipe.pages.report import write_report
from raypipe.pages.samples import choose_samples, collect_samples
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.evaluate import CONFUSION_FILE, _confusions_file, read_confusions
from raypipe.pipelines.sample_maps import sample_maps_plan
from raypipe.pipelines.tally import IMAGE_SCORES
from raypipe.reports.cards import draw_columns
from raypipe.reports.content import OwnWalks
from raypipe.results import Score
from raypipe.schema import MASKS, SEEDS


@pytest.fixture
def context(synthetic: tuple[str, Manifest], tmp_path: Path) -> Context:
    """Config and manifest of the synthetic images, walked along colours."""
    return open_context(load_config("", [f"manifest={synthetic[0]}", f"out={tmp_path}", "walk.affinity=rgb"]))


@pytest.fixture
def masks(context: Context, tmp_path: Path) -> Artifact:
    """Masks in three shards; the last image is in quarantine instead."""
    folder = str(tmp_path / "masks" / "0123456789ab")
    ids, uris = (context.manifest.table[name].to_pylist() for name in ("image_id", "image_uri"))
    rows = []
    for place, (image_id, uri) in enumerate(zip(ids[:-1], uris, strict=False)):
        height, width, _ = read_shape(storage.read_bytes(uri))
        png = encode_png(np.ones((height, width), np.uint8))
        rows.append({"image_id": image_id, "mask": png, "walk_mask": png, "predicted_iou": place / 24})
    write_quarantine(folder, {ids[-1]: ("DecodeImages", "broken")})
    return write_outputs(folder, MASKS, rows, digest="0123456789ab", rows_per_shard=8)


def evaluation_of(folder: Path, *, stage: str = "walk", split: str = "train", **image_iou: float) -> Artifact:
    """An evaluation's folder with what single images score."""
    rows = [
        {"image_id": image_id, "stage": stage, "split": split, "mean_iou": value}
        for image_id, value in image_iou.items()
    ]
    images = folder / "images" / "masks"
    images.mkdir(parents=True, exist_ok=True)
    # An evaluation of a manifest of two parts.
    for name, some in (("one", rows[::2]), ("two", rows[1::2])):
        pq.write_table(pa.Table.from_pylist(some, schema=IMAGE_SCORES), images / f"{name}.parquet")
    return Artifact(str(folder), "e")


def make_score(**changes: Any) -> Score:
    plain = {
        "stage": "walk",
        "split": "train",
        "num_images": 9,
        "mean_iou": 0.5,
        "class_iou": {"background": 0.5, "dog": 0.5},
        "post_processing": "none",
        "truth_digest": "0",
        "num_unscored": 0,
    }
    return Score(**{**plain, **changes})


def test_samples_are_best_worst_and_random_in_turns(context: Context, masks: Artifact, tmp_path: Path) -> None:
    ids = context.manifest.table["image_id"].to_pylist()
    evaluation = evaluation_of(tmp_path / "e", **{image_id: place / 100 for place, image_id in enumerate(ids[:10])})
    masked = held(context.rows(None), masks)
    chosen = choose_samples(masked, evaluation=evaluation, scores=[make_score()], number=2)
    assert [kind for _, kind, _ in chosen] == ["best", "worst", "random"] * 2
    assert [image_id for image_id, kind, _ in chosen if kind == "best"] == [ids[9], ids[8]]
    assert [image_id for image_id, kind, _ in chosen if kind == "worst"] == [ids[0], ids[1]]
    assert len({image_id for image_id, _, _ in chosen}) == 6
    assert {image_id: iou for image_id, _, iou in chosen if iou is not None} == {
        ids[9]: 0.09,
        ids[8]: 0.08,
        ids[0]: 0.0,
        ids[1]: 0.01,
    }
    assert choose_samples(masked, evaluation=evaluation, scores=[make_score()], number=2) == chosen
    unscored = choose_samples(masked, evaluation=None, scores=[], number=2)
    assert [kind for _, kind, _ in unscored] == ["random"] * 2


def test_samples_have_masks(context: Context, masks: Artifact, tmp_path: Path) -> None:
    ids = context.manifest.table["image_id"].to_pylist()
    evaluation = evaluation_of(tmp_path / "e", **{ids[-1]: 0.9, ids[0]: 0.5, ids[1]: 0.4, ids[2]: 0.3})

    def choose(outputs: Artifact) -> dict[str, str]:
        masked = held(context.rows(None), outputs)
        chosen = choose_samples(masked, evaluation=evaluation, scores=[make_score()], number=2)
        return {image_id: kind for image_id, kind, _ in chosen}

    assert ids[-1] not in choose(masks)  # the best one, in quarantine
    assert choose(masks)[ids[0]] == "best"
    assert choose(Artifact(masks.uri + "-none", "none")) == {}


def test_samples_are_ranked_by_the_last_stage(context: Context, masks: Artifact, tmp_path: Path) -> None:
    first, second, third = context.manifest.table["image_id"].to_pylist()[:3]
    evaluation_of(tmp_path / "e", stage="walk", **{first: 0.9, second: 0.1, third: 0.5})
    walked = tmp_path / "e" / "images" / "masks" / "one.parquet"
    walked.rename(walked.with_name("three.parquet"))
    evaluation = evaluation_of(tmp_path / "e", stage="dcrf", **{first: 0.2, third: 0.8})
    masked = held(context.rows(None), masks)
    scores = [make_score(), make_score(stage="dcrf")]
    chosen = {kind: name for name, kind, _ in choose_samples(masked, evaluation=evaluation, scores=scores, number=1)}
    assert (chosen["best"], chosen["worst"]) == (third, first)


def test_a_photograph_that_was_deleted_is_no_sample(
    context: Context, masks: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = context.manifest.table.to_pylist()
    rows[0]["image_uri"] = str(tmp_path / "deleted.jpg")
    gone = replace(context, manifest=Manifest.from_rows(rows, context.classes))
    evaluation = evaluation_of(tmp_path / "e", **{rows[0]["image_id"]: 0.9, rows[1]["image_id"]: 0.5})
    options = {
        "maps": Artifact("", ""),
        "affinity": None,
        "evaluation": evaluation,
        "scores": [make_score()],
        "num_samples": 1,
    }
    samples = list(collect_samples(gone, {"masks": masks}, **options))
    assert rows[0]["image_id"] not in {sample.image_id for sample in samples}
    assert len(samples) == 2
    assert f"no sample of {rows[0]['image_id']} on the page" in caplog.text
    assert "deleted.jpg" in caplog.text


def test_only_the_chosen_rows_are_read(context: Context, masks: Artifact, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    original = load.read_columns

    def noted(uri: str, names: list[str], *, rows: list[int]) -> load.Loaded:
        seen.extend(pq.read_table(uri)["image_id"].take(pa.array(rows)).to_pylist())
        return original(uri, names, rows=rows)

    monkeypatch.setattr(load, "read_columns", noted)
    row = context.manifest.table.slice(0, 1).to_pylist()[0]
    cam = {"cam": encode_cam(np.ones((1, 24, 32), np.float32)), "cam_height": 24, "cam_width": 32, "class_ids": [1]}
    seeds = write_outputs(str(tmp_path / "seeds"), SEEDS, [{"image_id": row["image_id"], **cam}])
    evaluation = evaluation_of(tmp_path / "e", **{row["image_id"]: 0.5})
    outputs = {"seeds": seeds, "masks": masks}
    options = {
        "maps": Artifact("", ""),
        "affinity": None,
        "evaluation": evaluation,
        "scores": [make_score()],
        "num_samples": 2,
    }
    first, *others = collect_samples(context, outputs, **options)
    ids = {sample.image_id for sample in (first, *others)}
    assert Counter(seen) == Counter([*ids, row["image_id"]]), "three masks and a seed"
    assert (first.image_id, first.kind, first.iou) == (row["image_id"], "best", 0.5)
    assert first.cam.shape == (1, 24, 32)
    assert first.truth is not None
    assert [sample.kind for sample in others] == ["random", "random"]


def test_samples_show_maps_that_the_masks_stream_kept_none_of(
    local_ray: None, context: Context, masks: Artifact, tmp_path: Path
) -> None:
    """Without seeds, the picture would be a grey photograph below the words "heat of the strongest class"."""
    maps = write_tiny(str(tmp_path / "checkpoint"), classes=context.classes)
    outputs = {"seeds": Artifact(str(tmp_path / "seeds/none"), "none"), "masks": masks}
    samples = list(
        collect_samples(context, outputs, maps=maps, affinity=None, evaluation=None, scores=[], num_samples=2)
    )
    assert len(samples) == 2
    for sample in samples:
        assert sample.cam is not None
        assert len(sample.cam) == len(sample.class_ids) == len(sample.labels) > 0
        picture = draw_columns(sample)["CAM"]
        assert picture is not None
        assert np.ptp(picture.astype(int), axis=2).max() > 50, "a picture without colour"
    made = tmp_path / "samples"
    assert [path.name for path in made.iterdir()] == [sample_maps_plan(context, maps=maps).digest]


def test_a_sample_whose_maps_are_missing_shows_none(context: Context, masks: Artifact) -> None:
    options = {"maps": Artifact("", ""), "affinity": None, "evaluation": None, "scores": [], "num_samples": 1}
    (sample,) = collect_samples(context, {"masks": masks}, **options)
    assert draw_columns(sample)["CAM"] is None


def test_quarantined_images_are_counted_by_reason(tmp_path: Path) -> None:
    folder = str(tmp_path)
    reasons = {
        f"{number}.jpg": ("DecodeImages", f"truncated after {number} bytes of '{number}'") for number in range(50)
    }
    reasons["x"] = ("EncodeMasks", "r" * 1000)
    write_quarantine(folder, dict([*reasons.items()][:20]), part="one")
    write_quarantine(folder, dict([*reasons.items()][20:]), part="two")
    many, one = count_quarantined({"masks": folder, "seeds": f"{folder}/none"})
    assert (many.stage, many.num_images, len(many.image_ids)) == ("DecodeImages", 50, 3)
    assert many.reason.startswith("truncated after ")
    assert (one.num_images, len(one.reason)) == (1, 300)


def test_an_image_that_several_stages_have_in_quarantine_counts_once(tmp_path: Path) -> None:
    folders = {"seeds": f"{tmp_path}/seeds", "masks": f"{tmp_path}/masks"}
    for folder in folders.values():
        write_quarantine(folder, dict.fromkeys("abc", ("DecodeImages", "broken")))
    write_quarantine(folders["masks"], {"d": ("EncodeMasks", "late")})
    assert [(each.stage, each.num_images) for each in count_quarantined(folders)] == [
        ("DecodeImages", 3),
        ("EncodeMasks", 1),
    ]


def test_many_reasons_are_cut_off_and_counted(tmp_path: Path) -> None:
    write_quarantine(str(tmp_path), {str(n): ("S", "".join(chr(97 + int(d)) for d in f"{n:03}")) for n in range(90)})
    groups = count_quarantined({"masks": str(tmp_path)})
    assert len(groups) == 31
    assert sum(group.num_images for group in groups) == 90
    assert (groups[-1].reason, groups[-1].num_images) == (OTHERS, 60)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("can't read s3://b/x 1.jpg", "can't read * #.jpg"),
        ("unknown label 'dgo'", "unknown label *"),
        ("mask is (12, 13)", "mask is (#, #)"),
    ],
)
def test_reasons_alike(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_pairs_from_the_labels_column() -> None:
    rows = [["train", "track"]] * 9 + [["car"]] * 80 + [["track", "track"], [], None, ["unknown"]]
    labels = pa.chunked_array([pa.array(rows[:5], pa.list_(pa.string())), pa.array(rows[5:], pa.list_(pa.string()))])
    single, found = count_labels([labels, labels.slice(0, 0)], ("track", "train", "car"))
    assert single.tolist() == [10, 9, 80]
    assert found is not None
    assert found.num_images == 92  # all but the one that isn't labelled
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.num_both, pair.num_first, pair.num_second) == (1, 0, 9, 9, 10)
    halves = [labels.slice(0, 40), labels.slice(40)]
    assert count_labels(halves, ("track", "train", "car"))[1] == found, "part by part"
    none, pairs = count_labels([pa.chunked_array([pa.array([[], None], pa.list_(pa.string()))])], ("a",))
    assert (none.tolist(), pairs) == ([0], None)


def test_images_with_a_walk_of_their_own_are_counted(tmp_path: Path) -> None:
    """Of five images, one of them without labels, two took the run's."""
    taken = [(2.3, 16), (1.15, 4), (None, None), (2.3, 16), (2.3, 32)]
    rows = [
        {"image_id": str(number), "walk_alpha": alpha, "walk_steps": steps}
        for number, (alpha, steps) in enumerate(taken)
    ]
    masks = write_outputs(str(tmp_path / "masks"), MASKS, rows, digest="0", rows_per_shard=2)
    walk = Walk(alpha=2.3, num_steps=16)
    counted = {"num_images": 4, "num_others": 2, "num_smaller_alpha": 1, "num_shorter": 1, "num_longer": 1}
    assert count_walks(masks.uri, walk) == OwnWalks(alpha=2.3, num_steps=16, **counted)
    same = write_outputs(str(tmp_path / "same"), MASKS, [rows[0], rows[2]], digest="1", rows_per_shard=2)
    assert count_walks(same.uri, walk) is None


def test_confusions_come_back_from_their_file(tmp_path: Path) -> None:
    matrix = np.array([[5, 1], [0, 7]])
    scores = [make_score(confusion=matrix), make_score(stage="dcrf", confusion=2 * matrix)]
    assert final_confusions(Artifact(str(tmp_path), "e"), scores) == []  # an evaluation without the file
    (tmp_path / CONFUSION_FILE).write_bytes(_confusions_file(scores))
    assert {key: found.tolist() for key, found in read_confusions(str(tmp_path)).items()} == {
        ("walk", "train"): [[5, 1], [0, 7]],
        ("dcrf", "train"): [[10, 2], [0, 14]],
    }
    (last,) = final_confusions(Artifact(str(tmp_path), "e"), scores)
    assert (last.stage, last.split, last.matrix.tolist()) == ("dcrf", "train", [[10, 2], [0, 14]])
    assert final_confusions(None, []) == []


def test_risk_of_images_by_their_prediction(context: Context, masks: Artifact, tmp_path: Path) -> None:
    ids = context.manifest.table["image_id"].to_pylist()
    evaluation = evaluation_of(tmp_path / "e", **{image_id: place / 24 for place, image_id in enumerate(ids)})
    scores = [make_score(), make_score(split="val")]
    (found,) = collect_risks(context.config.out, masks=masks, evaluation=evaluation, scores=scores)
    assert "23 images" in found.note  # the one in quarantine has no mask
    assert found.risks["predicted IoU"] == pytest.approx(found.risks["best order"], abs=1e-6)
    assert found.risks["in no order"] == pytest.approx([1 - 11 / 24] * 50)
    few = evaluation_of(tmp_path / "few", **dict.fromkeys(ids[:9], 0.5))
    assert collect_risks(context.config.out, masks=masks, evaluation=few, scores=scores) == []


def test_risk_of_pixels_from_calibrations_of_these_masks(context: Context, masks: Artifact, tmp_path: Path) -> None:
    measured = {"num_images": 7, "num_pixels": 9, "ece_before": 0.2, "ece": 0.02, "mean_iou": {"1": 0.6, "0.5": 0.9}}
    for name, digest in (("a", "0123456789ab"), ("b", "another")):
        folder = tmp_path / "calibrate" / name
        folder.mkdir(parents=True)
        content = {"measured": measured, "image_ids": ["x"], "masks": digest}
        (folder / "calibration.json").write_text(json.dumps(content))
    (found,) = collect_risks(context.config.out, masks=masks, evaluation=None, scores=[])
    assert found.coverages == [0.5, 1]
    assert found.risks["calibrated"] == pytest.approx([0.1, 0.4])
    assert "0.200 to 0.020" in found.note


def test_sweeps_of_the_same_networks(tmp_path: Path) -> None:
    for name, classifier in (("a", "c0"), ("b", "other")):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        choice = {"chosen": {"alpha": 4.0}, "num_images": 9, "num_labelled": 0, "score": 0.5, "low": 0.4, "high": 0.6}
        choice["networks"] = {"maps": classifier, "affinity": None}
        (folder / "choice.json").write_text(json.dumps(choice))
        (folder / "beta_and_steps.svg").write_text("<svg/>")
    (found,) = collect_sweeps(str(tmp_path), maps=Artifact("", "c0"), affinity=None)
    assert (found.name, found.facts["chosen"], found.plots) == ("a", "alpha 4", {"beta and steps": b"<svg/>"})


def test_provenance_names_code_and_inputs(context: Context, masks: Artifact, classifier_uri: str) -> None:
    found = provenance(
        context, outputs={"masks": masks}, networks={"classifier": Artifact(classifier_uri, "c")}, resources="2 nodes"
    )
    assert found["resources of the cluster"] == "2 nodes"
    assert found["masks, digest of the plan"] == "0123456789ab"
    assert found["rows in the manifest"] == "24"
    assert {"raypipe", "commit", "torch", "ray", "resources of the cluster", "config"} <= set(found)


def test_page_of_a_run_without_truth_and_with_quarantine(
    context: Context, masks: Artifact, classifier_uri: str, tmp_path: Path
) -> None:
    uri = write_report(
        context,
        maps=Artifact(classifier_uri, "c"),
        seeds=write_outputs(str(tmp_path / "seeds"), SEEDS, []),
        masks=masks,
        segments=None,
        networks={"classifier": Artifact(classifier_uri, "c")},
        evaluation=None,
        scores=[],
        decisions=[],
        num_samples=2,
        resources="2 nodes",
    )
    page = Path(uri).read_text()
    assert page.count("<article") == 2
    assert "1 image could not be processed" in page
    assert "No image was scored" in page
    assert f"in {Path(context.config.out).name}, 20" in page
    assert "walk of 256 steps along plain colours, alpha 16, beta 8; refined by dCRF; seed 0" in page
    for section in ("results", "classes", "confusion", "risk", "gates", "sweeps", "saliency", "training"):
        assert f'id="{section}"' not in page
