"""Finds an `image_id` that rows of two parts have: each part alone can't know, and files would be written twice."""

from collections import Counter
from collections.abc import Collection
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.data.names import hash_names
from raypipe.data.rows import Part, Rows
from raypipe.streams.tasks import are_few, in_tasks

_AT_A_TIME = 20_000_000
"""Ids whose hashes the driver holds together, 8 bytes each; of more it takes several rounds."""


def check_unique(rows: Rows) -> None:
    """Makes sure that no two rows of a manifest have the same `image_id`.

    Raises:
        ValueError: naming some that two rows have, and their parts.
    """
    if len(rows.parts) < 2:  # reading a part checks it
        return
    rounds, inline = -(-rows.most // _AT_A_TIME), are_few(rows)
    for number in range(rounds):
        of_parts = in_tasks(partial(_hashes, rows, number, rounds), rows.parts, inline=inline)
        hashes = np.sort(np.concatenate(list(of_parts)))
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[:100]
        if not len(suspects):
            continue
        having = in_tasks(partial(_having, rows, suspects.tolist()), rows.parts, inline=inline)
        found = [pair for pairs in having for pair in pairs]
        counts = Counter(image_id for image_id, _ in found)
        twice = sorted((image_id, part) for image_id, part in found if counts[image_id] > 1)
        if twice:
            some = "; ".join(f"{image_id!r} in part {part}" for image_id, part in twice[:4])
            raise ValueError(f"image_ids are given more than once, such as {some}: every row needs its own")


def _hashes(rows: Rows, number: int, rounds: int, part: Part) -> NDArray[np.uint64]:
    hashes = hash_names(rows.read(part)["image_id"], "unique")
    chosen: NDArray[np.uint64] = hashes[hashes % np.uint64(rounds) == number]
    return chosen


def _having(rows: Rows, suspects: Collection[int], part: Part) -> list[tuple[str, str]]:
    image_ids = rows.read(part)["image_id"]
    wanted = np.isin(hash_names(image_ids, "unique"), np.array(suspects, np.uint64))
    return [(image_id, part.name) for image_id in image_ids.filter(pa.array(wanted)).to_pylist()]
