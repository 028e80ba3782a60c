"""Which outputs each option of the config changes: no more and no fewer than those whose bytes it can change.

The steps are the real ones; in the place of computing, a stream writes rows of nothing under the digest of its plan,
and a training a checkpoint whose content is that digest.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from config_options import options

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.config import RunConfig, load_config
from raypipe.data.checkpoints import CHECKPOINT, METADATA_FILE
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.rows import Rows
from raypipe.outputs.imported import SEEDS_FILE
from raypipe.outputs.ledger import INDEX, SHARDS, write_entries
from raypipe.outputs.load import held
from raypipe.outputs.records import open_folder, write_summary
from raypipe.outputs.sink import write_shard
from raypipe.pipelines import calibrate, label_precision, networks
from raypipe.pipelines.calibrate import ConfidenceMap
from raypipe.pipelines.context import Context
from raypipe.pipelines.in_use import FOLDER as IN_USE
from raypipe.pipelines.networks import NetworkPlan
from raypipe.pipelines.setting_scores import sweep_plan
from raypipe.pipelines.sweep import STRIDE, grid, scored_rows, sweep_folder
from raypipe.results import LabelPrecision, StreamSummary
from raypipe.run import open_run
from raypipe.schema import ROW_DIGEST, SHARD_DIGEST
from raypipe.streams.collect import rows_digest
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source
from raypipe.trials import trials_provenance

CLASSES = ("cat", "dog")

BASE = [
    "network.backbone=mobilenet_v2",
    "splits.masks=[train,val]",
    "repeat_threshold=0.5",
    "classifier.saliency=eps++",
    "saliency.weights=FOLDER/saliency.pth",
    "affinity.start=pretrained",
    "segmenter.enabled=true",
    "segmenter.start=pretrained",
    "segmenter.mask_share=0.5",
    "segmenter.validation_splits=[val]",
    "calibration.max_risk=0.3",
]
"""With these, as many options as possible have something to say."""

SEGMENTED = {"segmenter", "segments", "scores", "evaluate"}
MASKED = {"gate", "masks", *SEGMENTED, "counts", "calibrate", "calibrated"}
WALKED = {*MASKED, "sweep", "trials"}
LEARNED = {"affinity", *WALKED}
SEEDED = {"seeds", *LEARNED}
CLASSIFIED = {"classifier", "labels", *SEEDED}
ALL = {"saliency", *CLASSIFIED}

CHANGES: dict[str, tuple[str, set[str]]] = {
    "manifest": ("FOLDER/copy.parquet", set()),
    "out": ("FOLDER/other", set()),
    "seed": ("1", CLASSIFIED),
    "precision": ("fp32", CLASSIFIED),
    "jitter": ("[0.1, 0.1, 0.1, 0.1]", CLASSIFIED),
    "repeat_threshold": ("0.9", CLASSIFIED),
    "images.max_side": ("512", ALL),
    "images.bands": ("[3, 2, 1]", ALL),
    "images.tile": ("512 classifier.saliency=none", ALL),
    "splits.train": ("[train,more]", CLASSIFIED),
    "splits.masks": ("[train]", {"evaluate", "calibrate", "calibrated", "sweep", "trials"}),
    "network.backbone": ("tiny", CLASSIFIED),
    "network.weights": ("FOLDER/weights.pth", CLASSIFIED),
    "network.preprocessing": ("caffe", CLASSIFIED),
    "optimizer.name": ("sgd", CLASSIFIED),
    "optimizer.new_lr_factor": ("5", CLASSIFIED),
    "optimizer.bias_lr_factor": ("2", CLASSIFIED),
    "optimizer.momentum": ("0.5", CLASSIFIED),
    "optimizer.weight_decay": ("0.5", CLASSIFIED),
    "optimizer.warmup_steps": ("7", CLASSIFIED),
    "classifier.epochs": ("3", CLASSIFIED),
    "classifier.batch_size": ("3", CLASSIFIED),
    "classifier.crop_size": ("64", CLASSIFIED),
    "classifier.max_images": ("1", CLASSIFIED),
    "classifier.lr": ("0.5", CLASSIFIED),
    "classifier.output_stride": ("16", CLASSIFIED),
    "classifier.long_side": ("[64, 65]", CLASSIFIED),
    "classifier.saliency": ("eps", CLASSIFIED),
    "classifier.saliency_loss.eps_share": ("0.25", CLASSIFIED),
    "classifier.saliency_loss.ird_tau": ("0.25", CLASSIFIED),
    "classifier.saliency_loss.stride": ("4", CLASSIFIED),
    "cams.scales": ("[1.0]", SEEDED),
    "cams.out_stride": ("1", SEEDED),
    "trimaps.alpha_low": ("2", SEEDED),
    "trimaps.alpha_high": ("200", SEEDED),
    "trimaps.crf_stride": ("4", SEEDED),
    "trimaps.refine": ("pamr", SEEDED),
    "affinity.epochs": ("3", LEARNED),
    "affinity.batch_size": ("3", LEARNED),
    "affinity.crop_size": ("64", LEARNED),
    "affinity.max_images": ("1", LEARNED),
    "affinity.lr": ("0.5", LEARNED),
    "affinity.start": ("classifier", LEARNED),
    "affinity.radius": ("7", LEARNED),
    "affinity.freeze_backbone": ("true", LEARNED),
    "affinity.jitter": ("[0.1, 0.1, 0.1, 0.1]", LEARNED),
    "walk.affinity": ("rgb", SEEDED),  # no seeds are made
    "walk.alpha": ("5", WALKED),
    "walk.beta": ("5", WALKED),
    "walk.num_steps": ("5", WALKED),
    "walk.radius": ("3", WALKED),
    "walk.count_padding": ("true", WALKED),
    "inference.mode": ("throughput", ALL),
    "refinement.method": ("pamr", MASKED),
    "refinement.power": ("3", MASKED),
    "refinement.compat_bilateral": ("3", MASKED),
    "refinement.device": ("gpu", SEEDED),
    "refinement.gate": ("off", {"gate"}),
    "evaluation.splits": ("[val]", {"evaluate"}),
    "segmenter.epochs": ("3", SEGMENTED),
    "segmenter.batch_size": ("3", SEGMENTED),
    "segmenter.crop_size": ("64", SEGMENTED),
    "segmenter.max_images": ("2", SEGMENTED),
    "segmenter.lr": ("0.5", SEGMENTED),
    "segmenter.enabled": ("false", SEGMENTED),
    "segmenter.start": ("classifier", SEGMENTED),
    "segmenter.head": ("lraspp", SEGMENTED),
    "segmenter.long_side": ("[64, 65]", SEGMENTED),
    "segmenter.mask_share": ("0.25", SEGMENTED),
    "segmenter.min_confidence": ("0.25", SEGMENTED),
    "segmenter.rounds": ("1", {"gate", *SEGMENTED}),  # which judges, segments and trains once more
    "segmenter.validation_splits": ("[]", SEGMENTED),
    "segmentation.splits": ("[val]", {"evaluate"}),
    "segmentation.scales": ("[1.0, 2.0]", {"segments", "scores", "evaluate"}),
    "segmentation.method": ("dcrf", {"segments", "scores", "evaluate"}),
    "sweep.search": ("optuna", {"sweep", "trials"}),
    "sweep.alphas": ("[3.0]", {"sweep", "trials"}),
    "sweep.betas": ("[3.0]", {"sweep", "trials"}),
    "sweep.steps": ("[3]", {"sweep", "trials"}),
    "sweep.num_images": ("2", {"sweep", "trials"}),
    "sweep.num_labelled": ("1", {"sweep", "trials"}),
    "sweep.training": ("{classifier.lr: [1, 2]}", {"trials"}),
    "calibration.num_images": ("1", {"calibrate", "calibrated"}),
    "calibration.max_risk": ("0.5", {"calibrated"}),
    "saliency.preprocessing": ("[128, 256]", ALL),
    "saliency.weights": ("FOLDER/other.pth", ALL),
    "checkpoints.classifier": ("FOLDER/given/classifier", ALL),
    "checkpoints.affinity": ("FOLDER/given/affinity", SEEDED),  # no seeds are made
    "checkpoints.segmenter": ("FOLDER/given/segmenter", SEGMENTED),
    "checkpoints.seeds": ("FOLDER/seeds", ALL),
    "budget.max_fraction": ("0.5", set()),
    "budget.max_rows": ("5", set()),
    "cluster.address": ("ray://head:10001", set()),
    "cluster.autoscaling": ("['nodes=2,cpus=8,memory=32']", set()),
    "cluster.num_cpus": ("8", set()),
    "cluster.train_workers": ("4", set()),
    "cluster.min_train_workers": ("1", set()),
    "cluster.state_minutes": ("2", set()),
    "cluster.gpus_per_train_worker": ("0", set()),
    "cluster.network_actors": ("3", set()),
    "cluster.gpus_per_actor": ("0", set()),
    "cluster.cpu_actors": ("3", set()),
    "cluster.rows_per_block": ("5", set()),
    "cluster.start_timeout": ("5", set()),
    "cluster.row_timeout": ("5", set()),
    "cluster.object_store_memory": ("100000000", set()),
}
"""Another value of each option, with what else it takes, and the outputs that are others, or aren't made, with it."""


def test_the_table_holds_every_option() -> None:
    assert sorted(CHANGES) == sorted(options(RunConfig))


class Made:
    """Computes nothing, but writes what a stream or a training would leave for the next ones to find."""

    def run(self, context: Context, plan: Plan, rows: Rows, **_options: Any) -> tuple[Artifact, StreamSummary]:
        """In the place of `Context.run`."""
        plan.check(rows.columns)
        made = plan.artifact(context.config.out)
        open_folder(made.uri, plan.provenance())
        source = Source.of(plan, rows, made.uri, run=1)
        number = 0
        for part in rows.read_parts:
            wanted = source.wanted(part)
            columns = {name: wanted[name] for name in ("image_id", ROW_DIGEST)}
            columns |= {each.name: _column(each, wanted.num_rows) for each in plan.schema if each.name != "image_id"}
            write_entries(
                made.uri, INDEX, part.name, write_shard(made.uri, SHARDS, part.name, pa.table(columns)), run=1
            )
            number += wanted.num_rows
        counts = {"num_rows": number, "num_finished": number, "num_quarantined": 0, "num_computed": number}
        summary = StreamSummary(**counts, seconds=0)
        write_summary(made.uri, counts)
        return made, summary

    def train(self, context: Context, plan: NetworkPlan, folder: str) -> None:  # noqa: ARG002 - as the real one
        """In the place of a training."""
        write_metadata(storage.join(folder, CHECKPOINT), plan.task.name, digest(plan.provenance()))

    def know(self, *_: Any, **__: Any) -> LabelPrecision:
        """In the place of what a classifier knows: nobody can tell."""
        return LabelPrecision(method="cross-validation", num_images=0, classes=())

    def count(self, context: Context, counted: Artifact, rows: Rows) -> str:
        """In the place of adding up a calibration's counts: all that they depend on."""
        drawn = [context.config.calibration.num_images, context.config.seed]
        return digest([counted.digest, rows_digest(held(rows, counted), [SHARD_DIGEST]), drawn])

    def fit(self, counted: str) -> ConfidenceMap:
        """In the place of the fit: a map that tells what it was fitted on."""
        probability = (int(counted, 16) / 16**12,)
        return ConfidenceMap(
            probability=probability, image_ids=(), num_pixels=0, measured=None, num_unscored=0, unscored={}
        )


def _column(field: pa.Field, number: int) -> pa.Array:
    """Bytes where there are bytes, and scores that rise: every gate keeps what it judges. There is nothing to score."""
    if "confusion" in field.name:
        return pa.nulls(number, field.type)
    if field.type == pa.binary():
        return pa.array([b"x"] * number)
    if field.type == pa.float64():
        return pa.array([float(field.name.endswith("_after"))] * number)
    return pa.nulls(number, field.type)


def write_metadata(uri: str, task: str, found: str) -> None:
    metadata = {"task": task, "backbone": "tiny", "classes": CLASSES, "preprocessing": {}, "config": {}}
    storage.write_bytes_atomic(storage.join(uri, METADATA_FILE), json.dumps(metadata | {"digest": found}).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two manifests of the same five rows, weights, checkpoints and maps."""
    folder = tmp_path_factory.mktemp("digests")
    rows = [
        {"image_id": f"{index}", "image_uri": f"{index}.jpg", "labels": labels, "split": split, "mask_uri": mask}
        | {"supervision": supervision}
        for index, (labels, split, mask, supervision) in enumerate(
            [
                (["cat"], "train", None, "weak"),
                (["cat", "dog"], "train", "0.png", "mask"),
                (["cat"], "train", "1.png", "weak"),
                (["dog"], "val", "2.png", "weak"),
                (["cat"], "more", "3.png", "weak"),
            ]
        )
    ]
    for name in ("manifest", "copy"):
        write_manifest(Manifest.from_rows(rows, CLASSES), str(folder / f"{name}.parquet"))
    for name in ("saliency", "other", "weights"):
        (folder / f"{name}.pth").write_text(name)
    for task in ("classifier", "affinity", "segmenter"):
        write_metadata(str(folder / "given" / task), task, "given")
    (folder / "seeds").mkdir()
    (folder / "seeds" / SEEDS_FILE).write_text(json.dumps({"digest": "seeds"}))
    return folder


@pytest.fixture
def outputs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, set[str]]]:
    """Makes a run and returns the digests of its outputs, by their names."""
    made = Made()
    monkeypatch.setattr(Context, "run", lambda context, *args, **options: made.run(context, *args, **options))
    monkeypatch.setattr(networks, "_train", made.train)
    monkeypatch.setattr(label_precision, "label_precision", made.know)
    monkeypatch.setattr(calibrate, "_count", made.count)
    monkeypatch.setattr(calibrate, "_fit", made.fit)

    def run(overrides: Sequence[str]) -> dict[str, set[str]]:
        out = tmp_path / digest(list(overrides))
        paths = [f"manifest={folder}/manifest.parquet", f"out={out}"]
        given = [*paths, *(word.replace("FOLDER", str(folder)) for word in (*BASE, *overrides))]
        run = open_run(load_config("preset: demo", given))
        run.evaluate()
        run.calibrate()
        affinity = run.train_affinity()
        rows, context = scored_rows(run.context), run.context
        plan = sweep_plan(context, grid(context), maps=run.find_maps(), affinity=affinity, stride=STRIDE)
        folders = [path for path in Path(run.config.out).iterdir() if path.name != IN_USE]
        found = {path.name: {each.name for each in path.iterdir()} for path in folders}
        return found | {
            "sweep": {sweep_folder(context, plan, rows)[-12:]},
            "trials": {digest(trials_provenance(context))},
        }

    return run


@pytest.fixture(scope="module")
def base() -> dict[str, set[str]]:
    """Filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_changes_what_it_can_change_and_no_more(
    option: str, outputs: Callable[..., dict[str, set[str]]], base: dict[str, set[str]]
) -> None:
    if not base:
        base |= outputs([])
        assert set(base) == ALL
    value, expected = CHANGES[option]
    first, *more = value.split(" ") if option in ("images.tile",) else [value]
    found = outputs([f"{option}={first}", *more])
    assert {name for name in ALL if found.get(name) != base.get(name)} == expected


STALE = {
    "a retrained classifier whose maps are given": (
        ["checkpoints.seeds=FOLDER/seeds", "affinity.start=classifier"],
        "classifier.lr=0.5",
        {"classifier", "affinity"},
        {"seeds"},
    ),
    "true masks that choose a segmenter's epoch": ([], "segmenter.validation_splits=[more]", {"segmenter"}, {"masks"}),
    "the precision of a segmenter's training": ([], "precision=fp32", {"segmenter"}, {"saliency"}),
}
"""What was once taken for the same: the config, what changes, what has to follow, and what stays."""


@pytest.mark.parametrize("case", STALE)
def test_no_cache_is_stale(case: str, outputs: Callable[..., dict[str, set[str]]]) -> None:
    given, change, follow, stay = STALE[case]
    before, after = outputs(given), outputs([*given, change])
    assert all(not before[name] & after[name] for name in follow)
    assert all(before[name] == after[name] for name in stay)


def test_a_limit_that_leaves_no_image_out_changes_nothing(
    outputs: Callable[..., dict[str, set[str]]], base: dict[str, set[str]]
) -> None:
    networks = ("classifier", "affinity", "segmenter")
    found = [base or outputs([])]
    found += [outputs([f"{name}.max_images={number}" for name in networks]) for number in ("null", "3")]
    for made in found:
        assert {name: made[name] for name in ALL - {"trials"}} == {name: found[0][name] for name in ALL - {"trials"}}


def test_another_round_of_self_training_keeps_the_network_that_it_starts_from(
    outputs: Callable[..., dict[str, set[str]]],
) -> None:
    rounds = [outputs([f"segmenter.rounds={number}"]) for number in range(3)]
    for fewer, more in pairwise(rounds):
        assert fewer["segmenter"] < more["segmenter"]
        assert len(more["segmenter"]) == len(fewer["segmenter"]) + 1


def test_a_network_of_the_same_name_is_known_by_its_content(
    folder: Path, outputs: Callable[..., dict[str, set[str]]]
) -> None:
    given = f"checkpoints.classifier={folder}/again"
    write_metadata(str(folder / "again"), "classifier", "given")
    first = outputs([given])
    assert outputs([f"checkpoints.classifier={folder}/given/classifier"]) == first
