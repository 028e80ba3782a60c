"""The segmentation network from mixed supervision to masks and scores, on a local Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stream_outputs import write_masks

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.pipelines.classifier import train_classifier
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.evaluate import score_segments
from raypipe.pipelines.segmenter import has_weak_rows, run_segment, segment_plan, segmenter_plan, train_segmenter
from raypipe.pipelines.self_training import self_train
from raypipe.run import open_run
from raypipe.schema import MASKS
from raypipe.stages.encode import sums_of_classes
from raypipe.training.trainer import read_metrics

OVERRIDES = [
    "splits.train=null",
    "splits.masks=null",
    "segmenter.start=pretrained",
    "segmenter.head=lraspp",
    "segmenter.epochs=2",
    "segmenter.batch_size=8",
    "segmenter.crop_size=96",
    "segmenter.long_side=[96,128]",
    "segmenter.mask_share=0.5",
    "segmenter.validation_splits=[val]",
    "cluster.network_actors=1",
    "cluster.cpu_actors=1",
    "cluster.train_workers=1",
]


def make_context(manifest: Manifest, folder: Path, kinds: dict[str, str | None], *overrides: str) -> Context:
    """A context whose rows have the given supervision."""
    rows = [row | {"supervision": kinds.get(row["image_id"], "none")} for row in manifest.table.to_pylist()]
    rows[0]["labels"] = None  # a segmentation network needs none
    write_manifest(Manifest.from_rows(rows, manifest.classes), str(folder / "manifest.parquet"))
    return open_context(make_config(folder, *overrides))


def make_config(folder: Path, *overrides: str) -> RunConfig:
    return load_config("preset: demo", [f"manifest={folder}/manifest.parquet", f"out={folder}", *OVERRIDES, *overrides])


def write_pseudo_masks(manifest: Manifest, image_ids: list[str], folder: Path, *, wrong: float = 0) -> Artifact:
    """A masks folder that holds the true masks of a few images, of which a share of the pixels gets other labels."""
    rows, rng = [], np.random.default_rng(0)
    for row in manifest.table.to_pylist():
        if row["image_id"] in image_ids:
            mask = decode_mask(storage.read_bytes(row["mask_uri"]))
            labels = rng.choice(np.unique(mask), mask.shape).astype(np.uint8)
            mask = np.where(rng.random(mask.shape) < wrong, labels, mask)
            confidence = encode_png(np.full_like(mask, 200))
            sums = sums_of_classes(mask, np.full_like(mask, 200))
            rows.append({"image_id": row["image_id"], "mask": encode_png(mask), "confidence": confidence, **sums})
    return write_masks(str(folder), rows)


def test_from_mixed_supervision_to_scores(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = synthetic[1]
    image_ids = manifest.table["image_id"].to_pylist()
    kinds = dict.fromkeys(image_ids[:8], "mask") | dict.fromkeys(image_ids[8:18])
    context = make_context(manifest, tmp_path, kinds)
    masks = write_pseudo_masks(manifest, image_ids[8:16], tmp_path / "pseudo")
    said = "left out: 2 of 10 weak rows, without a pseudo-mask"
    assert segmenter_plan(context, masks=masks, classifier=None).warning.startswith(said)
    own = segmenter_plan(context, masks=masks, classifier=None, own_masks=True).warning
    assert own == "left out: 8 of 16 rows to segment, which are in quarantine"
    assert said not in caplog.text  # masks that a look misses may be made before the training
    segmenter = train_segmenter(context, masks=masks, classifier=None)
    assert f"segmenter: {said}" in caplog.text
    metrics = read_metrics(str(Path(segmenter.uri).parent))
    assert [epoch["num_images"] for epoch in metrics] == [16, 16]
    assert all(epoch["loss_mask"] > 0 < epoch["loss_weak"] for epoch in metrics)
    assert all(0 < epoch["mean_iou"] < 1 for epoch in metrics)
    assert train_segmenter(context, masks=masks, classifier=None) == segmenter

    segments, summary = run_segment(context, segmenter=segmenter)
    assert (summary.num_rows, summary.num_finished, summary.num_computed) == (24, 24, 24)
    assert segments == segment_plan(context, segmenter=segmenter).artifact(context.config.out)
    for row in read_shards(segments.uri + "/shards", schema=MASKS).to_pylist():
        assert decode_mask(row["mask"]).shape == (row["height"], row["width"])
    scores = score_segments(context, segments)
    assert {(score.stage, score.split, score.post_processing) for score in scores} == {
        ("segmenter", "train", "none"),
        ("segmenter", "val", "none"),
    }


def test_what_can_t_be_learned_from_is_refused(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    manifest = synthetic[1]
    image_ids = manifest.table["image_id"].to_pylist()
    context = make_context(manifest, tmp_path, {})
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        train_segmenter(context, masks=None, classifier=None)
    context = make_context(manifest, tmp_path, dict.fromkeys(image_ids, "mask"))
    assert not has_weak_rows(context)
    with pytest.raises(ValueError, match=r"mask_share is 0\.5, but 24 rows have true masks and 0 pseudo-masks"):
        train_segmenter(context, masks=None, classifier=None)
    context = make_context(manifest, tmp_path, {image_ids[3]: "weak"})
    assert has_weak_rows(context)
    with pytest.raises(ValueError, match="1 row has supervision 'weak', which needs pseudo-masks"):
        train_segmenter(context, masks=None, classifier=None)
    with pytest.raises(ValueError, match="no mask of a row that is trained on"):
        train_segmenter(context, masks=Artifact(str(tmp_path / "empty"), "m"), classifier=None)
    without = Manifest(
        manifest.table.set_column(
            manifest.table.schema.get_field_index("mask_uri"), "mask_uri", pa.nulls(len(manifest), pa.string())
        ),
        manifest.classes,
    )
    with pytest.raises(ValueError, match="1 row has supervision 'mask' but no mask_uri"):
        train_segmenter(make_context(without, tmp_path, {image_ids[3]: "mask"}), masks=None, classifier=None)


@pytest.mark.slow
def test_self_training_ends_where_masks_get_worse(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    manifest = synthetic[1]
    image_ids = manifest.table["image_id"].to_pylist()
    kinds: dict[str, str | None] = dict.fromkeys(image_ids[1:13], "weak") | dict.fromkeys(image_ids[13:16], "mask")
    context = make_context(
        *(manifest, tmp_path, kinds),
        *("segmenter.rounds=2", "segmenter.epochs=1", "classifier.epochs=2", "classifier.crop_size=96"),
    )
    classifier = train_classifier(context)
    masks = write_pseudo_masks(manifest, image_ids[1:13], tmp_path / "pseudo")
    segmenter = train_segmenter(context, masks=masks, classifier=None)
    last, decisions = self_train(context, segmenter=segmenter, masks=masks, classifier=classifier)
    assert [decision.refinement for decision in decisions] == ["own masks"]
    assert decisions[0].num_images == 12
    # True masks against those of a network that has seen each image once: the first are better.
    assert not decisions[0].kept
    assert last == segmenter


@pytest.mark.slow
def test_own_masks_that_are_better_are_learned_from(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    """Of pseudo-masks in which half of the pixels are wrong at random a network learns what they have in common."""
    manifest = synthetic[1]
    image_ids = manifest.table["image_id"].to_pylist()
    context = make_context(
        *(manifest, tmp_path, dict.fromkeys(image_ids[1:], "weak")),
        *("segmenter.rounds=1", "segmenter.epochs=12", "segmenter.mask_share=null", "segmenter.lr=0.003"),
        *("classifier.epochs=12", "classifier.crop_size=96"),
    )
    classifier = train_classifier(context)
    masks = write_pseudo_masks(manifest, image_ids[1:], tmp_path / "pseudo", wrong=0.5)
    first = train_segmenter(context, masks=masks, classifier=None)
    last, decisions = self_train(context, segmenter=first, masks=masks, classifier=classifier)
    assert decisions[0].kept, decisions[0]
    assert decisions[0].num_images == 23
    assert (last != first) is decisions[1].kept
    print(decisions)
    of_last, of_first = (read_metrics(str(Path(segmenter.uri).parent))[-1] for segmenter in (last, first))
    print(f"mean IoU on val: {of_first['mean_iou']:.3f}, after the round {of_last['mean_iou']:.3f}")
    again = self_train(context, segmenter=first, masks=masks, classifier=classifier)
    assert again == (last, decisions), "what is there is found"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["voc12_resnet38", "voc12_resnet50", "coco_resnet50"])
def test_every_step_of_the_large_recipes_runs(
    local_ray: None, synthetic: tuple[str, Manifest], tmp_path: Path, preset: str
) -> None:
    rows = synthetic[1].table.to_pylist()
    for index, row in enumerate(rows):
        row["split"] = ("train", "train_aug", "val")[index % 3]
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    networks = ("classifier", "affinity", "segmenter")
    overrides = [
        *(f"{name}.{value}" for name in networks for value in ("epochs=1", "batch_size=4")),
        "network.weights=null",
        *(f"{name}.crop_size=64" for name in networks),
        *(f"{name}.long_side=[64,96]" for name in ("classifier", "segmenter")),
        *("cams.scales=[1.0]", "segmentation.scales=[1.0]", "images.max_side=64"),
        *("cluster.train_workers=1", "cluster.network_actors=1", "cluster.cpu_actors=1"),
        *("cluster.gpus_per_train_worker=0", "cluster.gpus_per_actor=0", "refinement.gate=off"),
        *("repeat_threshold=null", "evaluation.splits=null"),
    ]
    config = load_config(f"preset: {preset}", [f"manifest={tmp_path}/manifest.parquet", f"out={tmp_path}", *overrides])
    run = open_run(config)
    stages = {score.stage for score in run.evaluate()[1]}
    assert stages == {"cam", "walk", "dcrf", "segmenter"}
    assert "segmenter" in Path(run.report(num_samples=1)).read_text()
