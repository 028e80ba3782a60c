"""Reads YOLO's labels: `data.yaml`, images in folders or lists, and a text file of polygons for each image.

https://docs.ultralytics.com/datasets/segment/. A line is `class x y x y …` with shares of width and height, and classes
counted from 0. A polygon's pixels are those whose middles lie in it; smaller objects lie on top of larger ones. A line
of a box alone, `class x y width height`, is 255 (ignored) in masks. An image with an empty file shows no object; one
without a file was not labelled. An export of raypipe comes back as it was (`images.csv`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import read_shape
from raypipe.data.merge import write_mask
from raypipe.data.opening import check_size
from raypipe.formats.draft import Draft, Drawn, draft_table
from raypipe.formats.exported import READERS, read_exported
from raypipe.formats.listing import list_images, without_suffix
from raypipe.formats.quote import quote
from raypipe.formats.yolo.polygons import Ring, fill
from raypipe.schema import BACKGROUND, IGNORE
from raypipe.words import counted

SPLITS = ("train", "val", "valid", "test")
_NOTHING = ("", "~", "null", "Null", "NULL")
"""How YAML writes that there is nothing."""
_FILES = ("data.yaml", "dataset.yaml", "data.yml")


@dataclass(frozen=True)
class Shape:
    """A line of a label file."""

    name: str
    """Of the class."""
    corners: Ring
    """(N, 2) shares of width and height."""
    is_box: bool


def read_yolo(source: str, *, masks: str | None = None) -> Draft:
    """Returns the images of a YOLO dataset.

    Args:
        source: absolute URI of `data.yaml`, or of its folder.
        masks: absolute URI of the folder to write masks into; None writes none.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: `data.yaml` names no classes or no images, or a file is damaged.
    """
    place, content = _data(source)
    names = _names(content, place)
    root = uri.parent(place)
    exported = read_exported(root)
    notes: list[str] = []
    damaged: list[str] = []
    if exported is None:
        rows: list[dict[str, Any]] = [
            {"image_uri": image, "split": split, "labels_uri": _label_file(image)}
            for split, image in _images(content, place)
        ]
        if not rows:
            raise ValueError(f"{place} names no images: expected the splits {', '.join(SPLITS)}")
        texts = _texts([row["labels_uri"] for row in rows])
        for row, text in zip(rows, texts, strict=True):
            shapes, bad = parse_labels(text or "", names, row["labels_uri"])
            row["labels"] = None if text is None else _labels(shapes, names)
            damaged += bad
        if missing := sum(text is None for text in texts):
            notes.append(f"{counted(missing, 'images have no label file')}: nobody has labelled such images")
    else:
        rows = [row | {"labels_uri": row["mask"] and storage.join(root, row["mask"])} for row in exported]

    def draw(numbers: Sequence[int], ids: Sequence[str], class_ids: Mapping[str, int]) -> Drawn:
        assert masks is not None
        return _draw([rows[number] for number in numbers], ids, names, class_ids, root=root, folder=masks)

    kept = ("image_id", "image_uri", "labels", "split")
    return Draft(
        table=draft_table([{name: row.get(name) for name in kept} for row in rows]),
        source=place,
        root=root,
        classes=tuple(names.values()),
        classes_from=f"the names of {place}",
        draw=None if masks is None else draw,
        skipped={"lines that are none of YOLO's": damaged},
        notes=notes,
    )


def _data(source: str) -> tuple[str, dict[str, Any]]:
    """The place and the content of `data.yaml`."""
    place = source
    if uri.suffix_of(source) not in (".yaml", ".yml"):
        places = [storage.join(source, name) for name in _FILES]
        found = next((one for one in places if storage.exists(one)), None)
        if found is None:
            raise FileNotFoundError(f"{source} has no {_FILES[0]}: name the YAML file that names classes and splits")
        place = found
    try:
        # The loader that takes all for texts: to others, a class named `no` is false, and `1e3` a number.
        content = yaml.BaseLoader(storage.read_bytes(place).decode("utf-8-sig")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{place} can't be read as YAML: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{place}: expected an object with names and splits, got {quote(content)}")  # noqa: TRY004 - the file's mistake
    return place, content


def _names(content: Mapping[str, Any], place: str) -> dict[int, str]:
    """Names by their numbers, which count from 0."""
    found = content.get("names")
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not found or not all(str(key).isdecimal() for key in found):
        raise ValueError(
            f"{place}: expected names, a list of class names or an object from numbers, got {quote(found)}"
        )
    return {int(key): str(found[key]) for key in sorted(found, key=lambda key: int(key))}


def _images(content: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    """Split and URI of each image; an image that several splits name belongs to the first."""
    here = uri.parent(place)
    base = uri.absolute(content["path"], here) if content.get("path", "") not in _NOTHING else here
    seen: set[str] = set()
    for split in SPLITS:
        entries = content.get(split)
        for entry in entries if isinstance(entries, list) else [entries] if isinstance(entries, str) else []:
            for image in _entry_images(entry, base, here) if entry not in _NOTHING else ():
                if image not in seen:
                    seen.add(image)
                    yield split, image


def _entry_images(entry: str, base: str, here: str) -> Iterator[str]:
    """The images of a folder or a list; where the base folder has neither, those beside data.yaml are taken."""
    candidates = [
        uri.absolute(entry, base),
        uri.absolute(entry, here),
        uri.absolute(re.sub(r"^(\.\./)+", "", entry), here),
    ]
    found = next((one for one in candidates if storage.exists(one)), None)
    if found is None:
        raise FileNotFoundError(f"there is no {candidates[0]}, which data.yaml names")
    if uri.suffix_of(found) != ".txt":
        yield from list_images(found).images.values()
        return
    folder = uri.parent(found)
    for line in storage.read_bytes(found).decode("utf-8-sig").splitlines():
        if name := line.strip():
            yield uri.absolute(name, folder if name.startswith("./") else base)


def _label_file(image: str) -> str:
    """The file of an image's labels: the last folder `images` in its path is `labels` there."""
    before, found, behind = without_suffix(image).rpartition("/images/")
    return f"{before}/labels/{behind}.txt" if found else f"{without_suffix(image)}.txt"


def _texts(places: Sequence[str | None]) -> list[str | None]:
    """The content of label files; None for those that aren't there."""

    def read(place: str | None) -> str | None:
        try:
            return None if place is None else storage.read_bytes(place).decode("utf-8-sig")
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(read, places))


def _labels(shapes: Sequence[Shape], names: Mapping[int, str]) -> list[str]:
    found = {shape.name for shape in shapes}
    return [name for name in dict.fromkeys(names.values()) if name in found]


def parse_labels(text: str, names: Mapping[int, str], place: str) -> tuple[list[Shape], list[str]]:
    """Returns what a label file says, and the lines that are none of YOLO's.

    Args:
        text: the file's content.
        names: class names by their numbers.
        place: of the file, for messages.

    Raises:
        ValueError: a class has no name: with a wrong list of names all classes may be wrong.
    """
    shapes: list[Shape] = []
    damaged: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        values = _numbers(cells)
        if values is None or len(values) < 5 or len(values) == 6 or len(values) % 2 == 0 or values[0] % 1:
            damaged.append(f"{place}, line {number}: {line[:60]!r}")
            continue
        if int(values[0]) not in names:
            raise ValueError(
                f"{place}, line {number} is of class {int(values[0])}, but data.yaml has names for {min(names)} to "
                f"{max(names)}: complete it"
            )
        shapes.append(Shape(names[int(values[0])], np.array(values[1:]).reshape(-1, 2), len(values) == 5))
    return shapes, damaged


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def draw_shapes(shapes: Sequence[Shape], class_ids: Mapping[str, int], *, height: int, width: int) -> NDArray[np.uint8]:
    """Returns the mask (height, width) of one image's lines.

    Args:
        shapes: the lines.
        class_ids: of their classes.
        height: of the image.
        width: of the image.
    """
    mask = np.full((height, width), BACKGROUND, np.uint8)
    regions = []
    for shape in shapes:
        corners = shape.corners * (width, height)
        if shape.is_box:
            (left, top), (right, bottom) = corners[0] - corners[1] / 2, corners[0] + corners[1] / 2
            rows, columns = (np.clip(np.rint(ends).astype(int), 0, None) for ends in ((top, bottom), (left, right)))
            mask[rows[0] : rows[1], columns[0] : columns[1]] = IGNORE
        else:
            region = fill(corners, height=height, width=width)
            regions.append((int(np.count_nonzero(region)), class_ids[shape.name], region))
    for _, class_id, region in sorted(regions, key=lambda item: -item[0]):
        mask[region] = class_id
    return mask


def _draw(
    rows: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    names: Mapping[int, str],
    class_ids: Mapping[str, int],
    *,
    root: str,
    folder: str,
) -> Drawn:
    unsized: list[str] = []
    known = {name: class_ids.get(name, BACKGROUND) for name in names.values()}

    def draw(row: Mapping[str, Any], image_id: str) -> str | None:
        (text,) = _texts([row["labels_uri"]])
        if text is None:
            return None
        try:
            height, width = row.get("height"), row.get("width")
            if height is None or width is None:
                height, width, _ = read_shape(storage.read_bytes(uri.absolute(row["image_uri"], root)))
            check_size(height, width)
        except (ValueError, OSError):
            unsized.append(image_id)
            return None
        shapes, _ = parse_labels(text, names, row["labels_uri"])
        return write_mask(draw_shapes(shapes, known, height=height, width=width), folder, image_id)

    with ThreadPoolExecutor(READERS) as threads:
        found = list(threads.map(draw, rows, ids))
    return Drawn(found, {"masks of images whose height and width aren't known": sorted(unsized)})
