"""Imports a folder in PASCAL VOC's layout: `ImageSets`, `JPEGImages`, `Annotations` and `SegmentationClass`."""

import csv
import io
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as ET

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.formats.listing import find_classes, list_images, without_suffix
from raypipe.uri import absolute, relative

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""VOC's classes in the order of the class ids in its masks."""

DEFAULT_LISTS = ("train", "train_aug", "val")
READERS = 16
"""Number of annotations that are read at the same time."""

log = logging.getLogger(__name__)


def import_voc(
    root: str,
    *,
    lists: Sequence[str] | None = None,
    labels: str | None = None,
    skip_missing: bool = False,
    classes: Sequence[str] | None = None,
) -> Manifest:
    """Returns a manifest of a folder in the layout of PASCAL VOC.

    An image's split is the first of `lists` that names it. So with ("train", "train_aug"), where the second list
    contains the first, the split "train_aug" holds the additional images only; both splits together hold all of them.

    Args:
        root: URI of the folder.
        lists: names of `ImageSets/Segmentation/<name>.txt`, or of lists elsewhere in ImageSets such as "Main/train"; by
            default those of "train", "train_aug" and "val" that exist.
        labels: URI, relative to the root, of a CSV with the columns image_id and labels (names joined by "|"); it
            replaces `Annotations/<id>.xml`.
        skip_missing: leave out listed images that the folder doesn't have, instead of raising.
        classes: class names in the order of their ids. By default VOC's 20 if no other labels occur, else all
            labels in alphabetical order.

    Raises:
        FileNotFoundError: a folder or list is missing.
        ValueError: listed images are missing, or no image has a label.
    """
    images = _images_by_id(storage.join(root, "JPEGImages"))
    mask_folder = storage.join(root, "SegmentationClass")
    masks = _images_by_id(mask_folder) if storage.exists(mask_folder) else {}
    splits = _read_lists(root, lists)
    missing = [image_id for image_id in splits if image_id not in images]
    if missing and not skip_missing:
        raise ValueError(
            f"{len(missing)} of {len(splits)} listed images aren't in {root}/JPEGImages, such as {missing[:3]}: "
            "complete the folder, or leave them out by `skip_missing`"
        )
    ids = [image_id for image_id in splits if image_id in images]
    found = _read_annotations(root, ids) if labels is None else _read_label_table(absolute(labels, absolute(root)))
    rows = [
        {
            "image_id": image_id,
            "image_uri": images[image_id],
            "labels": found.get(image_id),
            "split": splits[image_id],
            "mask_uri": masks.get(image_id),
        }
        for image_id in ids
    ]
    unlabelled = sum(row["labels"] is None for row in rows)
    if missing or unlabelled:
        log.warning("%s: %d listed images left out, %d without labels", root, len(missing), unlabelled)
    all_labels = find_classes(rows, None)
    return Manifest.from_rows(rows, classes or (VOC_CLASSES if set(all_labels) <= set(VOC_CLASSES) else all_labels))


def _images_by_id(folder: str) -> dict[str, str]:
    return {without_suffix(path): uri for path, uri in list_images(folder).items()}


def _read_lists(root: str, lists: Sequence[str] | None) -> dict[str, str]:
    """Returns the split of each image_id, in the lists' order."""
    folder = storage.join(root, "ImageSets")
    uris = {
        name: storage.join(folder, name if "/" in name else f"Segmentation/{name}") + ".txt"
        for name in lists or DEFAULT_LISTS
    }
    present = {name: uri for name, uri in uris.items() if storage.exists(uri)}
    if absent := [uris[name] for name in uris if name not in present and (lists or not present)]:
        raise FileNotFoundError(f"no such list: {', '.join(absent)}")
    splits: dict[str, str] = {}
    for name, uri in present.items():
        lines = storage.read_bytes(uri).decode().splitlines()
        if "/" in name:
            # Lists of VOC's classification task may have 1, 0 or -1 after the id.
            lines = [re.sub(r"\s+(-1|0|1)\s*$", "", line) for line in lines]
        for image_id in filter(None, map(str.strip, lines)):
            splits.setdefault(image_id, name.rsplit("/", 1)[-1])
    if not splits:
        raise ValueError(f"the lists {list(present)} of {folder} are empty")
    return splits


def _read_annotations(root: str, ids: Sequence[str]) -> Mapping[str, list[str]]:
    """Returns the labels of the images that have an annotation."""
    folder = storage.join(root, "Annotations")
    available = {relative(uri, absolute(folder)) for uri in storage.list_files(folder, suffix=".xml")}
    annotated = [image_id for image_id in ids if f"{image_id}.xml" in available]
    with ThreadPoolExecutor(READERS) as pool:
        texts = pool.map(lambda image_id: storage.read_bytes(storage.join(folder, f"{image_id}.xml")), annotated)
        return {image_id: _object_names(text, image_id) for image_id, text in zip(annotated, texts, strict=True)}


def _object_names(xml: bytes, image_id: str) -> list[str]:
    # Entity bombs need a document type, which no annotation needs, so it is refused. UTF-16 could hide it.
    if b"<!DOCTYPE" in xml or b"\0" in xml:
        raise ValueError(f"Annotations/{image_id}.xml has a document type declaration or isn't UTF-8: mend it")
    try:
        tree = ET.fromstring(xml)  # noqa: S314 - without a document type nothing is expanded
    except ET.ParseError as error:
        raise ValueError(f"Annotations/{image_id}.xml is not XML: {error}") from error
    return sorted({(name.text or "").strip() for name in tree.iterfind("object/name")})


def _read_label_table(uri: str) -> Mapping[str, list[str]]:
    reader = csv.DictReader(io.StringIO(storage.read_bytes(uri).decode("utf-8-sig"), newline=""))
    if not {"image_id", "labels"} <= set(reader.fieldnames or ()):
        raise ValueError(f"{uri}: expected the columns image_id and labels, got {reader.fieldnames}")
    return {row["image_id"]: sorted(set(filter(None, (row["labels"] or "").split("|")))) for row in reader}
