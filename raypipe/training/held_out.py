"""Which labelled images tell what a classifier has learned: some are held out of its training, if there are enough.

Of 1,000 images and more, 5 % are held out, at least 50 and at most 1,000: those whose ids have the smallest hashes. So
they are nearly the same when the set grows, in any order and on any machine. A class with so few images that 5 % are
none keeps them all for learning, and nothing is measured of it.

Of fewer images none is held out. What can be learned of them is measured by cross-validation instead.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.names import hash_names
from raypipe.training.selection import who_shows

SHARE, LEAST, MOST = 0.05, 50, 1000
ENOUGH = 1000
"""Images from which on some are held out."""
FOLDS = 5
"""Of a cross-validation."""

ASKED_FILE = "asked.json"

_SALT = "held out"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Ids of the images whose labels a classifier is asked for after its training."""

    held_out: list[str]
    """It hasn't learned from them. Empty where none are held out."""
    learned: list[str]
    """It has: as many as are held out, or all, at most 1,000."""


def write_asked(asked: Asked, checkpoint: str) -> None:
    """Keeps in a checkpoint's folder, before there is one, which images are asked for."""
    content = json.dumps(asdict(asked), ensure_ascii=False).encode()
    storage.write_bytes_atomic(storage.join(checkpoint, ASKED_FILE), content)


def read_asked(checkpoint: str) -> Asked | None:
    """What `write_asked` has kept; None where nothing is: a network that somebody else has trained."""
    uri = storage.join(checkpoint, ASKED_FILE)
    return Asked(**json.loads(storage.read_bytes(uri))) if storage.exists(uri) else None


def hold_out(rows: pa.Table, *, classes: Sequence[str]) -> tuple[pa.Table, Asked]:
    """Parts the images to learn from.

    Args:
        rows: all that could be learned from, with `image_id` and `labels`.
        classes: the dataset's.

    Returns:
        The rows to learn from, in their order, and the images that are asked for.
    """
    order = np.argsort(hash_names(rows["image_id"], _SALT), kind="stable")
    held = order[:0]
    if rows.num_rows >= ENOUGH:
        number = min(MOST, max(LEAST, round(SHARE * rows.num_rows)))
        held = order[~_rare(rows, classes)[order]][:number]
    if len(held) < LEAST:  # nearly all images show a rare class
        held = order[:0]
    kept = np.ones(rows.num_rows, np.bool_)
    kept[held] = False
    learned = order[kept[order]][: len(held) or MOST]
    held_out, known = (rows["image_id"].take(pa.array(chosen)).to_pylist() for chosen in (held, learned))
    return rows.filter(pa.array(kept)), Asked(held_out=held_out, learned=known)


def folds_of(image_ids: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each image in a cross-validation, which depends on nothing but its id."""
    return (hash_names(pa.array(image_ids, pa.string()), "fold") % FOLDS).astype(np.int64)


def _rare(rows: pa.Table, classes: Sequence[str]) -> NDArray[np.bool_]:
    """The rows that show a class of which less than one image would be held out."""
    shown = who_shows(rows, classes)
    few = np.bincount(shown.number, minlength=len(classes)) < 1 / SHARE
    rare = np.zeros(rows.num_rows, np.bool_)
    rare[shown.row[few[shown.number]]] = True
    return rare
