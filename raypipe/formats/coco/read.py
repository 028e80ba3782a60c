"""Reads a COCO file: its images and labels, and on demand its regions as masks.

https://cocodataset.org/#format-data. Classes come in the order of the categories' ids, which may be any numbers. An
image's labels are the categories of its annotations other than crowds; without annotations it shows no object. A mask
holds the objects' regions, smaller ones on top of larger ones; a crowd is 255 (ignored) where no object lies on it, and
so is the box of an object without a region.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import check_size, decode_image
from raypipe.data.merge import write_mask
from raypipe.formats.coco.regions import decode_segmentation
from raypipe.formats.draft import Draft, Drawn, draft_table, join_drafts
from raypipe.formats.json_file import read_json, take
from raypipe.formats.listing import without_suffix
from raypipe.formats.quote import quote
from raypipe.schema import BACKGROUND, IGNORE

WRITERS = 8
"""Number of masks that are drawn and written at the same time."""

_RESERVED = ("background", "ignore", "void")


@dataclass
class Coco:
    """A COCO file, with what can't be used left out."""

    source: str
    names: dict[int, str]
    """Class names by category id, in the order of the ids; several ids may have the same name."""
    groups: dict[str, str]
    """The supercategory of each class that has one."""
    images: list[dict[str, Any]]
    """As in the file, one for each file name."""
    annotations: list[list[dict[str, Any]] | None]
    """Of each image, with a category that `names` has, and `iscrowd`; None where the file has no annotations at all."""
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids; the background, which some programs write as a category, is none."""
        return tuple(dict.fromkeys(name for name in self.names.values() if name.casefold() != "background"))


def read_coco_files(annotations: str, images: str, *, split: str | None = None, masks: str | None = None) -> Draft:
    """Returns the images of a COCO file, or of all of them in a folder.

    In a folder, images have the split that `raypipe export coco` wrote, or else the name of their file.

    Args:
        annotations: absolute URI of the file or folder.
        images: as of `read_coco`.
        split: as of `read_coco`.
        masks: as of `read_coco`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file isn't COCO's, or they have different categories.
    """
    is_file = uri.suffix_of(annotations) == ".json"
    files = [] if is_file else storage.list_files(annotations, suffix=".json")
    if not files:
        return read_coco(annotations, images, split=split, masks=masks)
    drafts = [
        read_coco(file, images, split=split, masks=masks, else_split=without_suffix(uri.name_of(file)))
        for file in files
    ]
    return join_drafts(drafts, source=annotations)


def read_coco(
    annotations: str,
    images: str,
    *,
    split: str | None = None,
    masks: str | None = None,
    else_split: str | None = None,
) -> Draft:
    """Returns a COCO file's images.

    The `image_id` is the one that `raypipe export coco` wrote, if it did.

    Args:
        annotations: absolute URI of the JSON file.
        images: absolute URI of the folder that file names count from.
        split: split of all images.
        masks: absolute URI of the folder to write masks into; None writes none.
        else_split: split of the images that have none by an export of raypipe or by `split`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's.
    """
    coco = open_coco(annotations)
    order = {name: number for number, name in enumerate(coco.names.values())}
    rows = []
    for image, own in zip(coco.images, coco.annotations, strict=True):
        labels = None if own is None else {coco.names[one["category_id"]] for one in own if not one["iscrowd"]}
        row = {
            "image_id": None,
            "image_uri": image["file_name"],
            "labels": None if labels is None else sorted(labels, key=order.__getitem__),
            "split": split,
        }
        rows.append(row | _exported(image, split, else_split))

    def draw(numbers: Sequence[int], ids: Sequence[str], class_ids: Mapping[str, int]) -> Drawn:
        assert masks is not None
        named = {category: class_ids.get(name, BACKGROUND) for category, name in coco.names.items()}
        return draw_masks(coco, masks, images=images, class_ids=named, ids=dict(zip(numbers, ids, strict=True)))

    return Draft(
        table=draft_table(rows),
        source=annotations,
        root=images,
        place=lambda number: f"{annotations}, image {coco.images[number]['id']}",
        classes=coco.classes,
        classes_from=f"the categories of {annotations}",
        draw=None if masks is None else draw,
        groups=coco.groups,
        skipped=coco.skipped,
        notes=coco.notes,
    )


def _exported(image: Mapping[str, Any], split: str | None, else_split: str | None) -> dict[str, Any]:
    """What `raypipe export coco` has written of an image's row in a manifest."""
    image_id, labels = image.get("raypipe_id"), image.get("raypipe_labels")
    found: dict[str, Any] = {"image_id": image_id} if isinstance(image_id, str) else {}
    if "raypipe_labels" in image and (labels is None or isinstance(labels, list)):
        found["labels"] = labels
    if split is None:
        own = image.get("raypipe_split", else_split)
        found["split"] = own if isinstance(own, str) else None
    return found


def open_coco(annotations: str) -> Coco:
    """Reads a COCO file, and leaves out what can't be used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's, or no category is left.
    """
    content = read_json(annotations)
    listed = take(content, "images", list, place=annotations)
    regions = content.get("annotations")
    coco = Coco(annotations, {}, {}, [], [])
    _read_categories(coco, content)
    first_of: dict[str, int] = {}
    position: dict[str, int] = {}
    for index, image in enumerate(listed):
        place = f"{annotations}: images[{index}]"
        name = image.get("file_name") if isinstance(image, dict) else None
        number = _key(image.get("id")) if isinstance(image, dict) else None
        if not isinstance(name, str) or not name.strip() or number is None:
            coco.skipped["images without an id or a file name"].append(place)
        elif number in position:
            coco.skipped["images whose id another image has"].append(f"{name} ({number})")
        elif name in first_of:
            coco.skipped["images that are named again; their annotations are joined"].append(name)
            position[number] = first_of[name]
        else:
            position[number] = first_of[name] = len(coco.images)
            coco.images.append(image)
            coco.annotations.append(None if regions is None else [])
    if regions is None:
        coco.notes.append(f"{annotations} has no annotations: its images are without labels")
        return coco
    categories = {str(number): number for number in coco.names}
    regions = take(content, "annotations", list, place=annotations)
    for index, annotation in enumerate(regions):
        place = f"annotations[{index}]"
        image, category = (
            (_key(annotation.get(name)) for name in ("image_id", "category_id"))
            if isinstance(annotation, dict)
            else (None, None)
        )
        if image not in position:
            coco.skipped["annotations of no image"].append(place)
        elif category not in categories:
            coco.skipped["annotations of no category"].append(f"{place}: {quote(annotation.get('category_id'))}")
        else:
            own = coco.annotations[position[image]]
            assert own is not None
            crowd = str(annotation.get("iscrowd")).strip().lower() in ("1", "1.0", "true")
            own.append({**annotation, "category_id": categories[category], "iscrowd": crowd})
    if regions and not any(coco.annotations):
        reasons = {reason: names for reason, names in coco.skipped.items() if reason.startswith("annotations")}
        told = "; ".join(f"{len(names):,} {reason}, such as {names[0]}" for reason, names in reasons.items())
        raise ValueError(f"{annotations}: none of its annotations can be used: {told}")
    _drop_unused(coco)
    return coco


def _key(value: Any) -> str | None:
    """An id as a text, so that 7, 7.0 and "7" are the same; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, int | str) and not isinstance(value, bool) else None


def _read_categories(coco: Coco, content: Any) -> None:
    found: dict[int, str] = {}
    for index, category in enumerate(take(content, "categories", list, place=coco.source)):
        place = f"{coco.source}: categories[{index}]"
        own = _key(category.get("id")) if isinstance(category, dict) else None
        if own is None or not re.fullmatch(r"-?[0-9]{1,18}", own):
            raise ValueError(f"{place}: expected an object with a whole number as 'id', got {quote(category)}")
        number = int(own)
        name = category.get("name")
        name = str(number) if name is None or not str(name).strip() else str(name).strip()
        if found.setdefault(number, name) != name:
            raise ValueError(
                f"{place}: the id {number} is that of {found[number]!r} already: give each an id of its own"
            )
        group = category.get("supercategory")
        if isinstance(group, str) and group.strip() and group != "none":
            coco.groups[name] = group.strip()
    if not found:
        raise ValueError(f"{coco.source} has no categories")
    coco.names = dict(sorted(found.items()))
    if len(coco.classes) < len(coco.names):
        names = list(coco.names.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        coco.notes.append(f"several categories have the same name and are one class: {', '.join(twice[:5])}")


def _drop_unused(coco: Coco) -> None:
    """Drops categories that no annotation has and that are no classes: the root of others, and the background."""
    used = {one["category_id"] for own in coco.annotations for one in own or ()}
    roots = {group for name, group in coco.groups.items() if group != name}
    for number, name in list(coco.names.items()):
        if number not in used and (name in roots or name.casefold() in _RESERVED) and len(coco.names) > 1:
            del coco.names[number]
            coco.groups.pop(name, None)
            coco.skipped["unused categories that stand for groups of others or for the background"].append(name)


def draw_masks(coco: Coco, folder: str, *, images: str, class_ids: Mapping[int, int], ids: Mapping[int, str]) -> Drawn:
    """Draws and writes masks.

    Args:
        coco: the file.
        folder: absolute URI of the folder to write into.
        images: absolute URI of the folder that file names count from: images without a size are looked at.
        class_ids: class id by category id.
        ids: the `image_id` of each image whose mask is wanted, by its place in `coco.images`: its mask is named so.

    Returns:
        The masks' URIs in the order of `ids`; None for images whose size isn't known.
    """
    unsized: list[str] = []
    damaged: list[str] = []

    def draw(index: int) -> str | None:
        image, own = coco.images[index], coco.annotations[index]
        size = None if own is None else _size(image, images)
        if own is None or size is None:
            unsized.append(image["file_name"])
            return None
        mask, bad = draw_regions(own, class_ids, height=size[0], width=size[1])
        damaged.extend(f"{image['file_name']}: {reason}" for reason in bad)
        return write_mask(mask, folder, ids[index])

    with ThreadPoolExecutor(WRITERS) as threads:
        found = list(threads.map(draw, ids))
    skipped = {
        "masks of images whose height and width aren't known": sorted(unsized),
        "regions that can't be drawn, whose boxes are ignored (255)": sorted(damaged),
    }
    return Drawn(found, skipped)


def draw_regions(
    annotations: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int], *, height: int, width: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns the mask (height, width) of one image's annotations, and why regions couldn't be drawn.

    Args:
        annotations: the image's annotations as of `Coco`.
        class_ids: class id by category id.
        height: height of the image.
        width: width of the image.
    """
    mask = np.full((height, width), BACKGROUND, np.uint8)
    objects = []
    damaged = []
    for annotation in annotations:
        try:
            region = decode_segmentation(annotation.get("segmentation"), height=height, width=width)
        except ValueError as error:
            damaged.append(f"annotation {annotation.get('id')}: {error}")
            mask[_box(annotation.get("bbox"))] = IGNORE
            continue
        if annotation["iscrowd"]:
            mask[region] = IGNORE
        else:
            objects.append((np.count_nonzero(region), class_ids[annotation["category_id"]], region))
    for _, class_id, region in sorted(objects, key=lambda item: -item[0]):
        mask[region] = class_id
    return mask, damaged


def _box(box: Any) -> tuple[slice, slice]:
    """The rows and columns of a box (x, y, width, height); none where there is no such box."""
    try:
        left, top, width, height = (float(value) for value in box)
        edges = [max(0, round(value)) for value in (top, top + height, left, left + width)]
    except (TypeError, ValueError, OverflowError):
        return slice(0, 0), slice(0, 0)
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def _size(image: Mapping[str, Any], images: str) -> tuple[int, int] | None:
    """Height and width of an image, as the file says it, or else the image itself."""
    sides = [_whole(image.get(name)) for name in ("height", "width")]
    if sides[0] and sides[1]:
        try:
            check_size(sides[0], sides[1])
        except ValueError:
            return None
        return sides[0], sides[1]
    try:
        found = decode_image(storage.read_bytes(uri.absolute(image["file_name"], images)), max_side=1)
    except (ValueError, OSError):
        return None
    return found.original_height, found.original_width


def _whole(value: Any) -> int | None:
    """A number of pixels, also as 96.0 or "96", as other programs write them."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)
