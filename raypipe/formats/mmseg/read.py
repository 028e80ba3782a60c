"""Reads mmsegmentation's folders: `img_dir` or `images`, `ann_dir` or `annotations`, by split.

https://mmsegmentation.readthedocs.io/en/latest/advanced_guides/datasets.html. An export of raypipe comes back as it was
(`images.csv`); in other folders images have the labels of their masks.
"""

from collections.abc import Sequence

from raypipe import storage, uri
from raypipe.formats.draft import Draft
from raypipe.formats.json_file import read_json, take
from raypipe.formats.labels import without_background
from raypipe.formats.pairs import Pair, read_pairs

METAINFO = "metainfo.json"
_FOLDERS = (("img_dir", "ann_dir"), ("images", "annotations"), ("leftImg8bit", "gtFine"))
"""Names of the folders of images and masks that mmsegmentation's own datasets have."""


def read_mmseg(root: str, *, names: Sequence[str] | None = None) -> Draft:
    """Returns a dataset in mmsegmentation's layout.

    Args:
        root: absolute URI of the folder.
        names: class names in the order of the masks' ids, for folders without `metainfo.json`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has none of the usual folders, or a mask's 0 isn't background.
    """
    classes, suffixes = _metainfo(root)
    classes_from = storage.join(root, METAINFO) if classes else "--classes"
    if classes is None and names is not None:
        classes = without_background(names)
    return read_pairs(root, _pairs, classes=classes, classes_from=classes_from, suffixes=suffixes)


def _metainfo(root: str) -> tuple[tuple[str, ...] | None, tuple[str, str] | None]:
    """Class names without background, and the endings of images and masks, as far as `metainfo.json` says them."""
    place = storage.join(root, METAINFO)
    if not storage.exists(place):
        return None, None
    content = read_json(place)
    names = [str(name) for name in take(take(content, "metainfo", dict, place=place), "classes", list, place=place)]
    if content.get("reduce_zero_label") or not names or names[0].casefold() != "background":
        first = names[0] if names else "nothing"
        raise ValueError(
            f"{place}: the masks' 0 is {first!r}, or all ids are to be lowered by one (reduce_zero_label), but to "
            "raypipe 0 is background: import a table of images and masks by `raypipe import table` with --mask-values"
        )
    own, other = content.get("img_suffix"), content.get("seg_map_suffix")
    return tuple(names[1:]), (own, other) if isinstance(own, str) and isinstance(other, str) else None


def _pairs(root: str) -> list[Pair]:
    """The folders of images and masks, one pair a split where they have folders for them."""
    for images, masks in _FOLDERS:
        folders = storage.join(root, images), storage.join(root, masks)
        files = storage.list_files(folders[1])
        if not files:
            continue
        paths = [uri.relative(place, folders[1]) or "" for place in files]
        splits = sorted({path.split("/", 1)[0] for path in paths if "/" in path})
        if not splits or any("/" not in path and path.lower().endswith(".png") for path in paths):
            return [Pair(*folders, None)]
        return [Pair(storage.join(folders[0], split), storage.join(folders[1], split), split) for split in splits]
    if storage.exists(root):
        raise ValueError(f"{root} has none of the folders {', '.join(' and '.join(pair) for pair in _FOLDERS)}")
    raise FileNotFoundError(f"there is no folder {root}")
