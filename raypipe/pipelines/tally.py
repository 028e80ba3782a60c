"""Adds up the confusion matrices of scored images, split by split: part by part where they are read, then together."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.rows import Part, Rows
from raypipe.ops.metrics import iou, mean_iou
from raypipe.outputs.ledger import Catalogue
from raypipe.outputs.load import with_quarantined
from raypipe.results import Score
from raypipe.stages.score_masks import unpack
from raypipe.streams.collect import reduce_outputs
from raypipe.streams.tasks import are_few, in_tasks

IMAGES = "images"
"""Folder of the images' scores, in that of the results."""

IMAGE_SCORES = pa.schema(
    {"image_id": pa.string(), "stage": pa.string(), "split": pa.string(), "mean_iou": pa.float64()}
)
"""A row an image and stage that is scored."""

NO_SPLIT = "all"
"""What rows without a split are counted as."""

_MOST_REASONS = 20


class Matrices(NamedTuple):
    """A column of confusion matrices."""

    number: int
    """That an image has."""
    truth: str
    """Column of the true mask's digest."""
    stage: str
    """Whose masks or maps are scored."""


@dataclass
class Tally:
    """Confusion matrices of one column of one split, added up."""

    confusion: NDArray[np.int64]
    """(number of matrices of an image, C + 1, C + 1)."""
    num_images: int = 0
    truth_sum: int = 0
    """Of the digests of ids and true masks: the same in any order."""
    num_unscored: int = 0
    unscored: dict[str, str] = field(default_factory=dict)
    """Reasons of some images whose true mask couldn't be compared."""

    def add(self, other: "Tally") -> None:
        """Adds the images of another tally."""
        self.confusion = self.confusion + other.confusion  # what a task returns is read-only
        self.num_images += other.num_images
        self.truth_sum += other.truth_sum
        self.num_unscored += other.num_unscored
        self.unscored = dict(sorted((self.unscored | other.unscored).items())[:_MOST_REASONS])

    def score(self, *, stage: str, split: str, post_processing: str, classes: tuple[str, ...], index: int = 0) -> Score:
        """The table's row of one of the matrices."""
        confusion = self.confusion[index]
        names = ("background", *classes)
        return Score(
            stage=stage,
            split=split,
            num_images=self.num_images,
            mean_iou=mean_iou(confusion),
            class_iou={name: float(value) for name, value in zip(names, iou(confusion), strict=True)},
            post_processing=post_processing,
            truth_digest=storage.digest([self.num_images, self.truth_sum]),
            num_unscored=self.num_unscored,
            unscored=self.unscored,
            confusion=confusion,
        )


Tallies = dict[str, dict[str, Tally]]
"""By column and split."""


def tally(
    scored: Artifact,
    rows: Rows,
    columns: Mapping[str, Matrices],
    *,
    num_classes: int,
    images: str | None = None,
) -> Tallies:
    """Adds up the matrices of scored rows.

    Args:
        scored: the stream's folder.
        rows: of the manifest, with their `split`.
        columns: of matrices, by name.
        num_classes: with background.
        images: URI of the folder for the images' own mean IoUs; None writes none.
    """
    names = [*columns, *{each.truth for each in columns.values()}]
    schema = pa.schema([pa.field("image_id", pa.string()), *(_field(name, columns) for name in names)])
    add = partial(_add, dict(columns), num_classes, images)
    total: Tallies = {name: {} for name in columns}
    for part in reduce_outputs(scored, rows, schema, add):
        for column, splits in part.items():
            for split, found in splits.items():
                if split in total[column]:
                    total[column][split].add(found)
                else:
                    total[column][split] = found
    for reasons in in_tasks(partial(_unscored, Catalogue.of(scored.uri), rows), rows.read_parts, inline=are_few(rows)):
        for split, (number, some) in reasons.items():
            for column, matrices in columns.items():
                empty = np.zeros((matrices.number, num_classes, num_classes), np.int64)
                known = total[column].setdefault(split, Tally(np.zeros_like(empty)))
                known.add(Tally(empty, num_unscored=number, unscored=some))
    return {column: dict(sorted(splits.items())) for column, splits in total.items()}


def _field(name: str, columns: Mapping[str, object]) -> pa.Field:
    return pa.field(name, pa.binary() if name in columns else pa.string())


def _add(
    columns: Mapping[str, Matrices],
    num_classes: int,
    images: str | None,
    tables: Iterator[pa.Table],
    part: Part,
) -> Tallies:
    total: Tallies = {name: {} for name in columns}
    of_images: list[pa.Table] = []
    for table in tables:
        found = []
        for row in table.to_pylist():
            split = row["split"] or NO_SPLIT
            for column, (count, digests, stage) in columns.items():
                shape = (count, num_classes, num_classes)
                each = total[column].setdefault(split, Tally(np.zeros(shape, np.int64)))
                if row[column] is None:  # there is no such output of this row
                    continue
                matrices = unpack(row[column], num_matrices=count, num_classes=num_classes)
                each.confusion += matrices
                each.num_images += 1
                each.truth_sum += _number(row["image_id"], row[digests])
                found.append((row["image_id"], stage, split, round(mean_iou(matrices[0]), 4)))
        of_images.append(pa.table(list(map(list, zip(*found, strict=True))) or [[]] * 4, schema=IMAGE_SCORES))
    if images is not None and of_images:
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables(of_images), buffer, compression="zstd")
        storage.write_bytes_atomic(storage.join(images, f"{part.name}.parquet"), buffer.getvalue().to_pybytes())
    return total


def _unscored(catalogue: Catalogue, rows: Rows, part: Part) -> dict[str, tuple[int, dict[str, str]]]:
    """By split, the number of rows that couldn't be scored, and why some of them."""
    table = with_quarantined(rows.read(part), catalogue.read(part.name))
    reasons: dict[str, dict[str, str]] = {}
    for row in table.select(["image_id", "split", "error_reason"]).to_pylist():
        if row["error_reason"] is not None:
            reasons.setdefault(row["split"] or NO_SPLIT, {})[row["image_id"]] = row["error_reason"]
    return {split: (len(all_), dict(sorted(all_.items())[:_MOST_REASONS])) for split, all_ in reasons.items()}


def _number(*texts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest())


def read_image_scores(folder: str, *, stage: str) -> Iterator[pa.Table]:
    """Tables of a stage's `IMAGE_SCORES` in a folder of results, one after another."""
    for uri in storage.list_files(storage.join(folder, IMAGES), suffix=".parquet"):
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
        yield table.filter(pc.equal(table["stage"], stage))
