"""Reads back what `raypipe export geotiff` wrote."""

from raypipe import storage
from raypipe.formats.draft import Draft
from raypipe.formats.labelmap import read_labelmap
from raypipe.formats.pairs import Pair, read_pairs

LABELMAP = "labelmap.txt"


def read_geotiff(root: str) -> Draft:
    """Returns the images of an export.

    Args:
        root: absolute URI of the folder.

    Raises:
        FileNotFoundError: there is no such folder, or no `labelmap.txt` in it.
        ValueError: it has no `images.csv` of raypipe, or a file is damaged.
    """
    place = storage.join(root, LABELMAP)
    return read_pairs(root, _no_pairs, classes=read_labelmap(place).classes, classes_from=place)


def _no_pairs(root: str) -> list[Pair]:
    raise ValueError(
        f"{root} has no images.csv of raypipe: import a table of images and masks (`raypipe import table`)"
    )
