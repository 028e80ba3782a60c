"""Reads a folder in PASCAL VOC's layout: `ImageSets`, `JPEGImages`, `Annotations` and `SegmentationClass`."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree as ET

from raypipe import storage, uri
from raypipe.data.names import file_stem
from raypipe.formats.draft import Draft, draft_table
from raypipe.formats.exported import read_exported
from raypipe.formats.labelmap import LabelMap, read_labelmap
from raypipe.formats.labels import LabelReader
from raypipe.formats.listing import IMAGE_SUFFIXES, without_suffix
from raypipe.formats.table.dialect import Dialect
from raypipe.formats.table.records import read_records
from raypipe.words import counted

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""VOC's classes in the order of the class ids in its masks."""

DEFAULT_LISTS = ("train", "train_aug", "val")
IMAGES = "JPEGImages"
LABELMAP = "labelmap.txt"
READERS = 16
"""Number of annotations that are read at the same time."""


def read_voc(root: str, *, lists: Sequence[str] | None = None, labels: str | None = None) -> Draft:
    """Returns the images that lists in a folder in the layout of PASCAL VOC name.

    An image's split is the first of `lists` that names it. So with ("train", "train_aug"), where the second list
    contains the first, the split "train_aug" holds the additional images only; both splits together hold all of them.
    Classes are those of `labelmap.txt`, if the folder has one, else VOC's 20 if no other labels occur. An export of
    raypipe comes back as it was (`images.csv`), unless lists or labels are named; annotations go before its labels.

    Args:
        root: absolute URI of the folder.
        lists: names of `ImageSets/Segmentation/<name>.txt`, or of lists elsewhere in ImageSets such as "Main/train"; by
            default those of "train", "train_aug" and "val" that exist, else all there are.
        labels: URI, relative to the root, of a CSV with the columns image_id and labels (names joined by "|"); it
            replaces `Annotations/<id>.xml`.

    Raises:
        FileNotFoundError: a folder or list is missing.
        ValueError: the lists are empty, or a file can't be read.
    """
    if lists is None and labels is None and (exported := read_exported(root)) is not None:
        return _exported(root, exported)
    splits = _read_lists(root, lists)
    masks = _masks(root)
    found = _read_annotations(root, list(splits)) if labels is None else _read_label_table(uri.absolute(labels, root))
    rows = [
        {
            "image_id": image_id,
            "image_uri": image_id,
            "labels": found.get(image_id),
            "split": splits[image_id],
            "mask_uri": masks.get(image_id) or masks.get(_stem(image_id)),
        }
        for image_id in splits
    ]
    labelmap = _labelmap(root)
    seen = {label for names in found.values() for label in names or ()}
    classes = labelmap.classes if labelmap else VOC_CLASSES if seen and seen <= set(VOC_CLASSES) else None
    notes = []
    if labels is not None and (extra := [image_id for image_id in found if image_id not in splits]):
        notes.append(f"{counted(len(extra), f'images of {labels} are in no list')}, such as {extra[0]!r}")
    return Draft(
        table=draft_table(rows),
        source=root,
        root=storage.join(root, IMAGES),
        place=lambda number: f"list {rows[number]['split']}",
        classes=classes,
        classes_from=storage.join(root, LABELMAP) if labelmap else "PASCAL VOC",
        usual_classes=labelmap is None,
        colors=labelmap.colors if labelmap and labelmap.colors else None,
        any_ending=True,
        notes=notes,
    )


def _exported(root: str, exported: Sequence[Mapping[str, Any]]) -> Draft:
    """What `raypipe export voc` wrote, whose masks hold ids, whatever their colours."""
    found = _read_annotations(root, [file_stem(row["image_id"]) for row in exported])
    rows = [
        {
            "image_id": row["image_id"],
            "image_uri": row["image_uri"],
            "labels": found.get(file_stem(row["image_id"]), row["labels"]),
            "split": row["split"],
            "mask_uri": row["mask"] and storage.join(root, row["mask"]),
        }
        for row in exported
    ]
    labelmap = _labelmap(root)
    return Draft(
        table=draft_table(rows),
        source=root,
        root=root,
        place=lambda number: f"image {rows[number]['image_id']}",
        classes=labelmap.classes if labelmap else None,
        classes_from=storage.join(root, LABELMAP),
    )


def _labelmap(root: str) -> LabelMap | None:
    place = storage.join(root, LABELMAP)
    return read_labelmap(place) if storage.exists(place) else None


def _masks(root: str) -> dict[str, str]:
    folder = storage.join(root, "SegmentationClass")
    if not storage.exists(folder):
        return {}
    files = storage.list_files(folder)
    return {
        without_suffix(uri.relative(place, folder) or ""): place
        for place in files
        if uri.suffix_of(place) in IMAGE_SUFFIXES
    }


def _read_lists(root: str, lists: Sequence[str] | None) -> dict[str, str]:
    """Returns the split of each image_id, in the lists' order."""
    folder = storage.join(root, "ImageSets")
    wanted = lists or DEFAULT_LISTS
    uris = {name: storage.join(folder, name if "/" in name else f"Segmentation/{name}") + ".txt" for name in wanted}
    present = {name: place for name, place in uris.items() if storage.exists(place)}
    if not present and not lists:
        found = storage.list_files(storage.join(folder, "Segmentation"), suffix=".txt")
        present = {without_suffix(uri.name_of(place)): place for place in found}
    if absent := [uris[name] for name in uris if name not in present and (lists or not present)]:
        there = [uri.relative(place, folder) or place for place in storage.list_files(folder, suffix=".txt")]
        shown = [without_suffix(path).removeprefix("Segmentation/") for path in there[:5]]
        hint = f". There are {', '.join(shown)}: name the ones to take by --list" if shown else ""
        raise FileNotFoundError(f"no such list: {', '.join(absent)}{hint}")
    splits: dict[str, str] = {}
    for name, place in present.items():
        lines = storage.read_bytes(place).decode("utf-8-sig").splitlines()
        if "/" in name:
            # Lists of VOC's classification task may have 1, 0 or -1 after the id.
            lines = [re.sub(r"\s+(-1|0|1)\s*$", "", line) for line in lines]
        for image_id in filter(None, map(str.strip, lines)):
            splits.setdefault(image_id, name.rsplit("/", 1)[-1])
    if not splits:
        raise ValueError(f"the lists {list(present)} of {folder} are empty")
    return splits


def _read_annotations(root: str, ids: Sequence[str]) -> dict[str, list[str] | None]:
    """Returns the labels of the images that have an annotation."""
    folder = storage.join(root, "Annotations")
    available = {uri.relative(place, folder) for place in storage.list_files(folder, suffix=".xml")}
    names = {image_id: name for image_id in ids for name in (_stem(image_id), image_id) if f"{name}.xml" in available}
    with ThreadPoolExecutor(READERS) as pool:
        texts = pool.map(lambda name: storage.read_bytes(storage.join(folder, f"{name}.xml")), names.values())
        return {image_id: _object_names(text, names[image_id]) for image_id, text in zip(names, texts, strict=True)}


def _stem(image_id: str) -> str:
    """An entry of a list without the ending of an image, which some programs write into lists."""
    return without_suffix(image_id) if image_id.lower().endswith(IMAGE_SUFFIXES) else image_id


def _object_names(xml: bytes, image_id: str) -> list[str]:
    # Entity bombs need a document type, which no annotation needs, so it is refused. UTF-16 could hide it.
    if b"<!DOCTYPE" in xml or b"\0" in xml:
        raise ValueError(f"Annotations/{image_id}.xml has a document type declaration or isn't UTF-8: mend it")
    try:
        tree = ET.fromstring(xml)  # noqa: S314 - without a document type nothing is expanded
    except ET.ParseError as error:
        raise ValueError(f"Annotations/{image_id}.xml is not XML: {error}") from error
    return sorted({name for one in tree.iterfind("object/name") if (name := (one.text or "").strip())})


def _read_label_table(table: str) -> dict[str, list[str] | None]:
    found: dict[str, list[str] | None] = {}
    reader = LabelReader(empty="none")
    for record in read_records(table, Dialect()):
        if not {"image_id", "labels"} <= set(record.values):
            raise ValueError(f"{table}: expected the columns image_id and labels, got {list(record.values)}")
        place = f"{record.place}, column 'labels'"
        found[record.values["image_id"].strip()] = reader.read(record.values["labels"], place=place)
    return found
