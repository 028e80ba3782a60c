"""Maps that another program made: what they have to be, and as columns of a table.

The contract, with what follows from it, is in docs/seeds.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raypipe.data.arrays import decode_cam, encode_cam
from raypipe.schema import MAX_CLASSES

MOST_CELLS = 100_000_000
"""Of an image's maps together: a row holds no more than memory does, whatever it says."""


def check_seed(classes: Sequence[Any], maps: ArrayLike) -> NDArray[np.floating[Any]]:
    """Returns the maps of an image as an array.

    Args:
        classes: names of the K classes; none where nothing is there.
        maps: (K, h, w) of the classes, floats in [0, 1], NaN where unknown. The grid covers the whole image.

    Raises:
        ValueError: they break the contract.
    """
    names, array = list(classes), np.asarray(maps)
    if any(not isinstance(name, str) or not name.strip() for name in names):
        raise ValueError(f"expected names as classes, got {names[:5]}: ids count otherwise in every program")
    if len(set(names)) < len(names):
        raise ValueError(f"expected one map for each class, got the classes {names[:10]}")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"expected maps of at most {MAX_CLASSES} classes, got {len(names)}")
    if not names:
        return np.zeros((0, 1, 1), np.float32)
    if array.dtype.kind != "f" or array.ndim != 3 or array.shape[0] != len(names) or not array.size:
        raise ValueError(
            f"expected float maps (K, height, width) of the K = {len(names)} classes, got {array.dtype} {array.shape}"
        )
    if array.size > MOST_CELLS:
        raise ValueError(f"expected at most {MOST_CELLS:,} cells in an image's maps, got {array.size:,}")
    outside = ~((array >= 0) & (array <= 1) | np.isnan(array))
    if outside.any():
        index = tuple(int(number) for number in np.argwhere(outside)[0])
        raise ValueError(
            f"expected values in [0, 1], or NaN where unknown, got {array[index]:g} at {index[1:]} of the map of "
            f"{names[index[0]]!r}: scale maps where they are made, for only there it is known what 1 is"
        )
    return array


def encode_seed(maps: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Returns the columns `schema.GIVEN_SEEDS` of an image's maps.

    Args:
        maps: (h, w) of each class by its name, floats in [0, 1], NaN where unknown; all of one size, on a grid that
            covers the whole image.

    Raises:
        ValueError: they break the contract.
    """
    array = check_seed(list(maps), np.stack([np.asarray(each) for each in maps.values()]) if maps else [])
    return seed_columns(list(maps), array)


def seed_columns(classes: Sequence[str], maps: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Returns the columns `schema.GIVEN_SEEDS` of maps that were checked."""
    _, height, width = maps.shape
    return {
        "seed_classes": list(classes),
        "seed_height": height,
        "seed_width": width,
        "seed": encode_cam(maps.astype(np.float32)),
    }


def decode_seed(row: Mapping[str, Any]) -> NDArray[np.float32]:
    """Returns the maps (K, h, w) of `seed_columns`."""
    return decode_cam(row["seed"], height=row["seed_height"], width=row["seed_width"])
