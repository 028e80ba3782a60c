"""Draws the images that a training learns from out of a set of any size, part by part and rare classes first.

An image's key is a hash of (seed, image_id). Of N images and C classes these are drawn:

1. of the images that show a class, the N / 2C with the smallest keys, for each class;
2. of the images with true masks, the N / 2 with the smallest keys;
3. of all others, those with the smallest keys, until there are N.

So a class that no more than N / 2C images show is learned from all of them, any other from N / 2C at least; and all
true masks are used where there are no more than N / 2. A frequent class has those images of step 1 among the smallest
keys of all anyway: but for the rare classes and the true masks the images are drawn at random.

Each step is a bottom-k sketch, and those of parts make that of the whole: the draw is the same however the rows are
split, and in any order. Of a large set each part sends only the rows whose keys are small enough, which is known from
the numbers of rows and classes.

Source: Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007,
https://doi.org/10.1145/1281100.1281133.
"""

from collections.abc import Sequence, Sized
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.data.names import hash_names
from raypipe.schema import SUPERVISED

KEY = "draw_key"
"""Column of an image's key; the images with the smallest ones are drawn first."""


class Totals(NamedTuple):
    """What there is of a set, or of a part of it; they add up."""

    num_rows: int
    num_true: int
    """Rows with true masks."""
    of_classes: NDArray[np.int64]
    """(C,) rows that show each class."""

    def plus(self, other: "Totals") -> "Totals":
        """Those of both."""
        of_classes = self.of_classes + other.of_classes
        return Totals(self.num_rows + other.num_rows, self.num_true + other.num_true, of_classes)


def count(rows: pa.Table, *, classes: Sequence[str]) -> Totals:
    """What there is of some rows."""
    known = who_shows(rows, classes)
    return Totals(rows.num_rows, int(_is_true(rows).sum()), np.bincount(known.number, minlength=len(classes)))


def screen(rows: pa.Table, totals: Totals, *, classes: Sequence[str], number: int, seed: int, slack: float) -> pa.Table:
    """The rows that may be drawn, with their keys: those below the keys up to which each step probably draws.

    Args:
        rows: of a part.
        totals: of the whole set.
        classes: as of `drawn`.
        number: as of `drawn`.
        seed: as of `with_keys`.
        slack: the keys' margin, 1 has none. With it go the rows that come in vain.
    """
    rows = with_keys(rows, seed=seed)
    keys = rows[KEY].to_numpy() / 2.0**64
    shares = _shares(totals, number=number, slack=slack)
    below = keys < shares.num_rows
    below |= _is_true(rows) & (keys < shares.num_true)
    shown = who_shows(rows, classes)
    below[shown.row[keys[shown.row] < shares.of_classes[shown.number]]] = True
    return rows.filter(pa.array(below))


def suffice(screened: pa.Table, totals: Totals, *, classes: Sequence[str], number: int, slack: float) -> bool:
    """Whether the rows of all parts' screens are surely all that can be drawn."""
    shares = _shares(totals, number=number, slack=slack)
    keys = screened[KEY].to_numpy() / 2.0**64
    shown = who_shows(screened, classes)
    near = keys[shown.row] < shares.of_classes[shown.number]
    found = np.bincount(shown.number[near], minlength=len(classes))
    enough = found >= np.minimum(totals.of_classes, _quota(number, classes))
    enough_true = (_is_true(screened) & (keys < shares.num_true)).sum() >= min(totals.num_true, number // 2)
    return bool(enough.all() and enough_true and (keys < shares.num_rows).sum() >= min(totals.num_rows, number))


class _Shares(NamedTuple):
    """Keys, in 0..1, below which enough rows lie."""

    num_rows: float
    num_true: float
    of_classes: NDArray[np.float64]


def _shares(totals: Totals, *, number: int, slack: float) -> _Shares:
    quota = _quota(number, totals.of_classes)
    return _Shares(
        slack * number / max(1, totals.num_rows),
        slack * (number // 2) / max(1, totals.num_true),
        slack * quota / np.maximum(1, totals.of_classes),
    )


def _quota(number: int, classes: Sized) -> int:
    """Images of each class that are drawn first."""
    return number // (2 * max(1, len(classes)))


def with_keys(rows: pa.Table, *, seed: int) -> pa.Table:
    """Adds each image's key (uint64)."""
    return rows.append_column(KEY, pa.array(hash_names(rows["image_id"], f"{seed}/draw")))


def drawn(rows: pa.Table, *, classes: Sequence[str], number: int | None) -> pa.Table:
    """The images that are drawn of all rows, or of all that may be drawn, without their keys, ordered by `image_id`.

    Args:
        rows: with `image_id`, `labels`, their keys and perhaps `supervision`.
        classes: the dataset's; other labels count for nothing, as no labels do.
        number: how many are drawn; where there are no more, all are. None takes all.
    """
    if number is not None and number < rows.num_rows:
        sketch = _sketch(rows, classes=classes, number=number)
        others = np.flatnonzero(~sketch.first)[: number - sketch.first.sum()]
        chosen = np.concatenate([np.flatnonzero(sketch.first), others])
        rows = rows.take(pa.array(sketch.order[chosen]))
    return rows.drop_columns([KEY]).sort_by("image_id")


class _Sketch(NamedTuple):
    order: NDArray[np.int64]
    """Rows from the smallest key to the largest."""
    first: NDArray[np.bool_]
    """Which of them steps 1 and 2 draw."""


def _sketch(rows: pa.Table, *, classes: Sequence[str], number: int) -> _Sketch:
    order = pc.sort_indices(rows, [(KEY, "ascending"), ("image_id", "ascending")]).to_numpy().astype(np.int64)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = np.zeros(len(order), np.bool_)
    shown = who_shows(rows, classes)
    # Sorted by class, then by rank.
    pairs = np.sort(shown.number * len(order) + rank[shown.row])
    class_number, ranks = np.divmod(pairs, max(1, len(order)))
    place = np.arange(len(pairs)) - np.searchsorted(class_number, class_number)
    first[ranks[place < _quota(number, classes)]] = True
    true = np.sort(rank[_is_true(rows)])
    first[true[: number // 2]] = True
    return _Sketch(order, first)


class Shown(NamedTuple):
    """Which row shows which class, a pair each."""

    row: NDArray[np.int64]
    number: NDArray[np.int64]


def who_shows(rows: pa.Table, classes: Sequence[str]) -> Shown:
    """Pairs of rows and the known classes that they are labelled with, by class number within a row."""
    labels = rows["labels"].combine_chunks()
    numbers = pc.index_in(pc.list_flatten(labels), value_set=pa.array(classes, pa.string()))
    known = pc.is_valid(numbers)
    row, number = (
        values.filter(known).to_numpy().astype(np.int64) for values in (pc.list_parent_indices(labels), numbers)
    )
    # A class that is named twice among an image's labels counts once.
    return Shown(*np.divmod(np.unique(row * len(classes) + number), max(1, len(classes))))


def _is_true(rows: pa.Table) -> NDArray[np.bool_]:
    if "supervision" not in rows.column_names:
        return np.zeros(rows.num_rows, np.bool_)
    is_true: NDArray[np.bool_] = pc.fill_null(pc.equal(rows["supervision"], SUPERVISED), False).to_numpy()  # noqa: FBT003
    return is_true
