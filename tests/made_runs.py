"""Whole runs in which nothing is computed: the steps are the real ones, without Ray.

In the place of computing, a stream writes rows of nothing under the digest of its plan, and a training a checkpoint
whose content is that digest.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.data.checkpoints import CHECKPOINT, METADATA_FILE
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.rows import Rows
from raypipe.outputs.imported import SEEDS_FILE
from raypipe.outputs.lease import Lease
from raypipe.outputs.ledger import INDEX, SHARDS, write_entries
from raypipe.outputs.load import held
from raypipe.outputs.records import open_folder, write_summary
from raypipe.outputs.sink import write_shard
from raypipe.pipelines import calibrate, networks, refit
from raypipe.pipelines.calibrate import ConfidenceMap
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels import precision as label_precision
from raypipe.pipelines.networks import NetworkPlan
from raypipe.results import LabelPrecision, StreamSummary
from raypipe.schema import ROW_DIGEST, SHARD_DIGEST
from raypipe.streams.collect import rows_digest
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source

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
        summary = StreamSummary(**counts, seconds=0, total_seconds=0)
        write_summary(made.uri, asdict(summary))
        return made, summary

    def train(self, _context: Context, plan: NetworkPlan, folder: str, _lease: Lease) -> None:
        """In the place of a training."""
        write_metadata(storage.join(folder, CHECKPOINT), plan.task.name, digest(plan.provenance()))

    def refit(self, classifier: Artifact, cells: pa.Table, uri: str, *, rows: str) -> None:  # noqa: ARG002 - as the real one
        """In the place of the weights of refitted maps."""
        write_metadata(uri, "classifier", digest(["refit", classifier, rows]), config={"refit": {"rows": rows}})

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


def write_metadata(uri: str, task: str, found: str, *, config: dict[str, Any] | None = None) -> None:
    metadata = {"task": task, "backbone": "tiny", "classes": CLASSES, "preprocessing": {}, "config": config or {}}
    storage.write_bytes_atomic(storage.join(uri, METADATA_FILE), json.dumps(metadata | {"digest": found}).encode())


def make_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write what `Made` says from now on."""
    made = Made()
    monkeypatch.setattr(Context, "run", lambda context, *args, **options: made.run(context, *args, **options))
    monkeypatch.setattr(networks, "_train", made.train)
    monkeypatch.setattr(refit, "_write", made.refit)
    monkeypatch.setattr(label_precision, "label_precision", made.know)
    monkeypatch.setattr(calibrate, "_count", made.count)
    monkeypatch.setattr(calibrate, "_fit", made.fit)


def write_inputs(folder: Path) -> None:
    """Two manifests of the same five rows, weights, checkpoints and maps."""
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
