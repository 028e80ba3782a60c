"""Reads FiftyOne's ImageSegmentationDirectory: `labels/`, and images in `data/` or named by `data.json`, by split.

https://docs.voxel51.com/user_guide/dataset_creation/datasets.html. An export of raypipe comes back as it was
(`images.csv`); in other folders images have the labels of their masks.
"""

from collections.abc import Sequence

from raypipe import storage, uri
from raypipe.formats.draft import Draft
from raypipe.formats.json_file import read_json
from raypipe.formats.labels import without_background
from raypipe.formats.pairs import Pair, read_pairs
from raypipe.schema import BACKGROUND, IGNORE

TARGETS = "targets.json"
IMAGES, MASKS, PLACES = "data", "labels", "data.json"


def read_fiftyone(root: str, *, names: Sequence[str] | None = None) -> Draft:
    """Returns a dataset in FiftyOne's layout.

    Args:
        root: absolute URI of the folder.
        names: class names in the order of the masks' ids, for folders without `targets.json`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no folder of masks, or a file is damaged.
    """
    place = storage.join(root, TARGETS)
    classes = _targets(place) if storage.exists(place) else None
    if classes is None and names is not None:
        classes = without_background(names)
    return read_pairs(root, _pairs, classes=classes, classes_from=place if storage.exists(place) else "--classes")


def _targets(place: str) -> tuple[str, ...]:
    """Class names by the masks' values.

    Raises:
        ValueError: values aren't 0 for background, 1, 2, … for classes, and 255 for what is ignored.
    """
    content = read_json(place)
    try:
        named = {int(value): str(name) for value, name in content.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{place}: expected an object from masks' values to names ({error})") from error
    ids = sorted(value for value in named if value not in (BACKGROUND, IGNORE))
    if not ids or ids != list(range(1, len(ids) + 1)):
        raise ValueError(
            f"{place}: expected the values 1, 2, … for classes, beside 0 for background and 255 for what is ignored, "
            f"got {ids[:10]}: import a table of images and masks by `raypipe import table` with --mask-values"
        )
    return tuple(named[value] for value in ids)


def _pairs(root: str) -> list[Pair]:
    paths = {uri.relative(place, root) or "" for place in storage.list_files(root)}
    if not paths:
        raise FileNotFoundError(f"there is no folder {root}, or nothing in it")
    if any(path.startswith(f"{MASKS}/") for path in paths):
        return [_pair(root, None)]
    splits = sorted({path.split("/")[0] for path in paths if path.split("/")[1:2] == [MASKS]})
    if not splits:
        raise ValueError(f"{root} has no folder {MASKS}/, and no folder of a split with one")
    return [_pair(storage.join(root, split), split) for split in splits]


def _pair(folder: str, split: str | None) -> Pair:
    images: str | dict[str, str] = storage.join(folder, IMAGES)
    listed = storage.join(folder, PLACES)
    if storage.exists(listed):
        content = read_json(listed)
        if not isinstance(content, dict):
            raise ValueError(f"{listed}: expected an object from names to places of images")
        images = {str(name): str(place) for name, place in content.items()}
    return Pair(images, storage.join(folder, MASKS), split)
