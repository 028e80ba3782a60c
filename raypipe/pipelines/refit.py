"""Refits a classifier's maps: cells are drawn in a stream, weights solved for from all of them, a checkpoint written.

The checkpoint is the classifier's with a second layer, and takes its place wherever maps are made. As a network in use
does, it stays as it is when a set grows, until networks are renewed.
"""

import logging
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import torch

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    has_checkpoint,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)
from raypipe.data.rows import Rows
from raypipe.ops.refit import fit_cells
from raypipe.pipelines.classifier import labelled_rows
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.labels.knowledge import read_label_precision, write_label_precision
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.needs import has_given_seeds
from raypipe.pipelines.steps import decode_images, fetch_images, sample_cells
from raypipe.screen.step import is_there
from raypipe.stages.networks import REFIT, is_refit
from raypipe.stages.sample_cells import CELLS, RefitSettings
from raypipe.streams.collect import draw_rows, outputs_of, rows_digest, with_ids
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)

SETTINGS = RefitSettings()

CELLS_OF_IMAGE = pa.schema([pa.field("image_id", pa.string()), *CELLS])

_ROWS = "rows"
"""In the checkpoint's config: digest of the images that it has learned from."""


def refits(context: Context) -> bool:
    """Whether a run refits its classifier's maps."""
    return context.config.cams.refit and not has_given_seeds(context)


def refit_classifier(context: Context, classifier: Artifact) -> Artifact:
    """The classifier with refitted maps, made unless it is there already.

    Args:
        context: config and manifest.
        classifier: the checkpoint.

    Raises:
        ValueError: the maps are sure of no cell.
    """
    if found := find_refit(context, classifier):
        is_there(REFIT)
        return found
    plan, rows = refit_plan(context, classifier), _rows(context)
    made, summary = context.run(plan, rows)
    logger.info("refit: %s", summary)
    uri = storage.join(made.uri, CHECKPOINT)
    _write(classifier, outputs_of(made, rows, CELLS_OF_IMAGE), uri, rows=_digest_of(rows))
    return Artifact(uri, read_metadata(uri, task="classifier")["digest"])


def _write(classifier: Artifact, cells: pa.Table, uri: str, *, rows: str) -> None:
    checkpoint = refitted(read_checkpoint(classifier.uri, task="classifier"), cells)
    checkpoint.config[REFIT][_ROWS] = rows
    if known := read_label_precision(classifier):
        write_label_precision(Artifact(uri, checkpoint.digest), known)
    write_checkpoint(checkpoint, uri)


def find_refit(context: Context, classifier: Artifact) -> Artifact | None:
    """The checkpoint that `refit_classifier` has written, or a given one that was refitted.

    None where there is none, or `retrain=all` asks for one of other images than it has learned from.
    """
    if is_refit(read_metadata(classifier.uri, task="classifier")["config"]):
        return classifier
    uri = storage.join(refit_plan(context, classifier).artifact(context.config.out).uri, CHECKPOINT)
    if not has_checkpoint(uri):
        return None
    found = read_metadata(uri, task="classifier")
    if context.retrain == "all" and found["config"][REFIT][_ROWS] != _digest_of(_rows(context)):
        return None
    return Artifact(uri, found["digest"])


def refit_plan(context: Context, classifier: Artifact) -> Plan:
    """FetchImages → DecodeImages → SampleCells."""
    return Plan(
        name=REFIT,
        stages=(
            fetch_images(context),
            decode_images(context),
            sample_cells(context, classifier, SETTINGS),
        ),
        schema=CELLS_OF_IMAGE,
        classes=context.classes,
    )


def _rows(context: Context) -> Rows:
    """The images whose cells are drawn."""
    classes, splits = context.classes, context.config.splits.train
    usable = context.rows(splits).then(lambda table, _: labelled_rows(table, classes))
    drawn = draw_to_learn(usable, classes=classes, number=SETTINGS.max_images, seed=context.config.seed)
    return draw_rows(with_ids(context.rows(splits), drawn["image_id"].to_pylist()), SETTINGS.max_images)


def _digest_of(rows: Rows) -> str:
    return rows_digest(rows, MANIFEST_COLUMNS)


def refitted(checkpoint: Checkpoint, cells: pa.Table) -> Checkpoint:
    """A classifier's checkpoint with the weights that its images' cells give.

    Args:
        checkpoint: the classifier's.
        cells: columns `CELLS_OF_IMAGE`, in the order of `image_id`: sums depend on it.

    Raises:
        ValueError: there are no cells.
    """
    labels = np.frombuffer(b"".join(cells["cell_labels"].to_pylist()), np.uint8)
    features = np.frombuffer(b"".join(cells["cell_features"].to_pylist()), "<f2")
    features = features.reshape(len(labels), checkpoint.weights["fc8.weight"].shape[1])
    counts = np.bincount(labels, minlength=len(checkpoint.classes) + 1)
    if unseen := [name for name, number in zip(checkpoint.classes, counts[1:], strict=True) if not number]:
        # Its scores are 0 everywhere, against which the background's is low wherever any object is.
        logger.warning(
            "refit: no map is sure of a cell of %s: its maps will show whatever doesn't look like background",
            ", ".join(unseen),
        )
    solved = fit_cells(features, labels, num_labels=len(counts), lam=SETTINGS.lam, target=SETTINGS.target)
    weights = torch.from_numpy(solved.astype(np.float32))
    layer = {"refit.weight": weights[:, :-1, None, None].contiguous(), "refit.bias": weights[:, -1].contiguous()}
    config = checkpoint.config | {REFIT: asdict(SETTINGS)}
    return replace(checkpoint, config=config, weights=checkpoint.weights | layer)
