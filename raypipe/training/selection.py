"""Draws the images that a training learns from out of a set of any size, part by part and rare classes first.

An image's key is a hash of (seed, image_id). Of N images and C classes these are drawn:

1. of the images that show a class, the N / 2C with the smallest keys, for each class;
2. of the images with true masks, the N / 2 with the smallest keys;
3. of all others, those with the smallest keys, until there are N.

So a class that no more than N / 2C images show is learned from all of them, any other from N / 2C at least; and all
true masks are used where there are no more than N / 2. A frequent class has those images of step 1 among the smallest
keys of all anyway: but for the rare classes and the true masks the images are drawn at random.

Each step is a bottom-k sketch, and those of parts make that of the whole: the draw is the same however the rows are
split, and in any order.

Source: Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007,
https://doi.org/10.1145/1281100.1281133.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.schema import SUPERVISED
from raypipe.training.order import hash_names

KEY = "draw_key"
"""Column of an image's key; the images with the smallest ones are drawn first."""


def draw_images(parts: Iterable[pa.Table], *, classes: Sequence[str], number: int | None, seed: int) -> pa.Table:
    """Draws images of a set that comes in parts, of which a few times `number` rows at most are held together.

    Args:
        parts: rows with `image_id`, `labels` and perhaps `supervision`; each image is in one of them.
        classes: the dataset's; other labels count for nothing, as no labels do.
        number: how many are drawn; where there are no more, all are. None takes all.
        seed: other seeds draw other images.

    Returns:
        The rows in the order of `image_id`.

    Raises:
        ValueError: if there is no part.
    """
    held: list[pa.Table] = []
    for part in parts:
        held.append(with_keys(part, seed=seed))
        if number is not None and sum(map(len, held)) > 4 * number:
            held = [candidates(pa.concat_tables(held), classes=classes, number=number)]
    if not held:
        raise ValueError("expected at least one part of the rows, perhaps an empty one")
    return drawn(pa.concat_tables(held), classes=classes, number=number)


def with_keys(rows: pa.Table, *, seed: int) -> pa.Table:
    """Adds each image's key (uint64)."""
    return rows.append_column(KEY, pa.array(hash_names(rows["image_id"], f"{seed}/draw")))


def candidates(rows: pa.Table, *, classes: Sequence[str], number: int) -> pa.Table:
    """Leaves out what no draw of `number` images takes, whatever rows are added to these: 2 · `number` stay at most."""
    sketch = _sketch(rows, classes=classes, number=number)
    wanted = sketch.first | (np.arange(len(sketch.order)) < number)
    return rows.take(pa.array(sketch.order[wanted]))


def drawn(rows: pa.Table, *, classes: Sequence[str], number: int | None) -> pa.Table:
    """The images that are drawn of all rows or of all parts' candidates, without their keys, ordered by `image_id`."""
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
    labels = rows["labels"].combine_chunks()
    class_numbers = pc.index_in(pc.list_flatten(labels), value_set=pa.array(classes, pa.string()))
    known = pc.is_valid(class_numbers)
    shown = class_numbers.filter(known).to_numpy().astype(np.int64)
    # A class that is named twice among an image's labels counts once. The pairs come sorted by class, then by rank.
    pairs = np.unique(shown * len(order) + rank[pc.list_parent_indices(labels).filter(known).to_numpy()])
    class_number, ranks = np.divmod(pairs, max(1, len(order)))
    place = np.arange(len(pairs)) - np.searchsorted(class_number, class_number)
    first[ranks[place < number // (2 * max(1, len(classes)))]] = True
    if "supervision" in rows.column_names:
        true = np.sort(rank[pc.fill_null(pc.equal(rows["supervision"], SUPERVISED), False).to_numpy()])  # noqa: FBT003
        first[true[: number // 2]] = True
    return _Sketch(order, first)
