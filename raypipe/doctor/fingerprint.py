"""What is known of a manifest before any training: counts of its labels, and sizes of a sample of its images."""

import logging
import statistics
from functools import partial, reduce

import pyarrow as pa

from raypipe import storage
from raypipe.config.fitting import Fingerprint
from raypipe.data.images import read_shape
from raypipe.data.opening import ImageError
from raypipe.data.rows import Part, Rows
from raypipe.doctor.forecast import evenly_spaced_rows
from raypipe.pipelines.classifier import labelled_rows
from raypipe.pipelines.context import Context
from raypipe.streams.tasks import are_few, in_tasks
from raypipe.training.selection import Totals, count

logger = logging.getLogger(__name__)

NUM_IMAGES = 64


def read_fingerprint(context: Context) -> Fingerprint:
    """The fingerprint of the rows that networks learn from: of `splits.train`, or of all where the manifest lacks one.

    Raises:
        ValueError: if none of them has usable labels.
    """
    splits, present = context.config.splits.train, frozenset(context.manifest.splits)
    learned = splits if splits and present.issuperset(splits) else None
    rows, classes = context.rows(learned), context.classes
    totals = count_labelled(rows, classes)
    if not totals.num_rows:
        where = "" if learned is None else f" of splits.train={list(learned)}"
        raise ValueError(f"no row{where} has usable labels; labels must be lists of {', '.join(classes[:5])}…")
    sides = _long_sides(rows)
    return Fingerprint(
        num_images=totals.num_rows,
        class_images=dict(zip(classes, totals.of_classes.tolist(), strict=True)),
        long_side=min(round(statistics.median(sides)), context.config.images.max_side) if sides else None,
        splits=present,
    )


def count_labelled(rows: Rows, classes: tuple[str, ...]) -> Totals:
    """Counts the rows whose labels can be learned."""
    counts = in_tasks(partial(_count, rows, classes), rows.read_parts, inline=are_few(rows))
    return reduce(Totals.plus, counts)


def _count(rows: Rows, classes: tuple[str, ...], part: Part) -> Totals:
    return count(labelled_rows(rows.read(part), classes), classes=classes)


def _long_sides(rows: Rows) -> list[int]:
    sample: pa.Table = evenly_spaced_rows(rows, NUM_IMAGES)
    sides = []
    for uri, content in storage.read_many({uri for uri in sample["image_uri"].to_pylist() if uri}).items():
        try:
            if isinstance(content, Exception):
                raise content
            shape = read_shape(content)
        except (ImageError, OSError, ValueError) as error:
            logger.warning("%s isn't counted: %s", uri, error)
            continue
        sides.append(max(shape.height, shape.width))
    return sides
