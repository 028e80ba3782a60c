"""Reads a COCO file: its images and labels, and on demand its regions as masks.

https://cocodataset.org/#format-data. Classes come in the order of the categories' ids, which may be any numbers. An
image's labels are the categories of its annotations other than crowds; without annotations it shows no object. A mask
holds the objects' regions, smaller ones on top of larger ones; a crowd is 255 (ignored) where no object lies on it, and
so is the box of an object without a region.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import check_size, decode_image
from raypipe.data.merge import write_mask
from raypipe.formats.coco.regions import decode_segmentation
from raypipe.formats.draft import Draft, draft_table
from raypipe.formats.json_file import read_json, take
from raypipe.schema import BACKGROUND, IGNORE, SUPERVISED

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
    """Of each image; None where the file has no annotations at all."""
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(dict.fromkeys(self.names.values()))

    @property
    def class_ids(self) -> dict[int, int]:
        """Class id by category id."""
        numbers = {name: number for number, name in enumerate(self.classes, start=1)}
        return {category: numbers[name] for category, name in self.names.items()}


def read_coco(annotations: str, images: str, *, split: str | None = None, masks: str | None = None) -> Draft:
    """Returns a COCO file's images.

    The `image_id` is the one that `raypipe export coco` wrote, if it did.

    Args:
        annotations: absolute URI of the JSON file.
        images: absolute URI of the folder that file names count from.
        split: split of all images.
        masks: absolute URI of the folder to write masks into; None writes none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's.
    """
    coco = open_coco(annotations)
    order = {name: number for number, name in enumerate(coco.classes)}
    rows = []
    for image, own in zip(coco.images, coco.annotations, strict=True):
        labels = None if own is None else {coco.names[one["category_id"]] for one in own if not one.get("iscrowd")}
        exported = image.get("raypipe_id")
        rows.append(
            {
                "image_id": exported if isinstance(exported, str) else None,
                "image_uri": image["file_name"],
                "labels": None if labels is None else sorted(labels, key=order.__getitem__),
                "split": split,
            }
        )
    if masks is not None:
        for row, place in zip(rows, draw_masks(coco, masks, images=images), strict=True):
            row |= {"mask_uri": place, "supervision": SUPERVISED if place else None}
    return Draft(
        table=draft_table(rows),
        source=annotations,
        root=images,
        place=lambda number: f"{annotations}, image {coco.images[number]['id']}",
        classes=coco.classes,
        classes_from=f"the categories of {annotations}",
        groups=coco.groups,
        skipped=coco.skipped,
        notes=coco.notes,
    )


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
    position: dict[Any, int] = {}
    for index, image in enumerate(listed):
        place = f"{annotations}: images[{index}]"
        name = image.get("file_name") if isinstance(image, dict) else None
        number = image.get("id") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name.strip() or not isinstance(number, int | str):
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
    for index, annotation in enumerate(take(content, "annotations", list, place=annotations)):
        place = f"annotations[{index}]"
        if not isinstance(annotation, dict) or annotation.get("image_id") not in position:
            coco.skipped["annotations of no image"].append(place)
        elif annotation.get("category_id") not in coco.names:
            coco.skipped["annotations of no category"].append(f"{place}: {annotation.get('category_id')!r}")
        else:
            own = coco.annotations[position[annotation["image_id"]]]
            assert own is not None
            own.append(annotation)
    _drop_unused(coco)
    return coco


def _read_categories(coco: Coco, content: Any) -> None:
    found: dict[int, str] = {}
    for index, category in enumerate(take(content, "categories", list, place=coco.source)):
        place = f"{coco.source}: categories[{index}]"
        number = take(category, "id", int, place=place)
        name = category.get("name")
        name = str(number) if name is None else str(name).strip()
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
    roots = set(coco.groups.values())
    for number, name in list(coco.names.items()):
        if number not in used and (name in roots or name.casefold() in _RESERVED) and len(coco.names) > 1:
            del coco.names[number]
            coco.groups.pop(name, None)
            coco.skipped["unused categories that stand for groups of others or for the background"].append(name)


def draw_masks(
    coco: Coco,
    folder: str,
    *,
    images: str,
    class_ids: Mapping[int, int] | None = None,
    name: Callable[[Mapping[str, Any]], str] | None = None,
) -> list[str | None]:
    """Draws and writes the mask of each image.

    Args:
        coco: the file.
        folder: absolute URI of the folder to write into.
        images: absolute URI of the folder that file names count from: images without a size are looked at.
        class_ids: class id by category id; by default that of the file's own classes.
        name: an image's `image_id`, after which its mask is named; by default the exported one or its file name.

    Returns:
        The masks' URIs; None for images whose size isn't known.
    """
    ids = coco.class_ids if class_ids is None else class_ids
    unsized: list[str] = []
    damaged: list[str] = []

    def draw(job: tuple[dict[str, Any], list[dict[str, Any]] | None]) -> str | None:
        image, own = job
        size = _size(image, images)
        if size is None or own is None:
            unsized.append(image["file_name"])
            return None
        mask, bad = draw_regions(own, ids, height=size[0], width=size[1])
        damaged.extend(f"{image['file_name']}: {reason}" for reason in bad)
        exported = image.get("raypipe_id")
        own_name = exported if isinstance(exported, str) else image["file_name"]
        return write_mask(mask, folder, own_name if name is None else name(image))

    with ThreadPoolExecutor(WRITERS) as threads:
        found = list(threads.map(draw, zip(coco.images, coco.annotations, strict=True)))
    if unsized:
        coco.skipped["masks of images whose height and width aren't known"] = sorted(unsized)
    if damaged:
        coco.skipped["regions that can't be drawn, whose boxes are ignored (255)"] = sorted(damaged)
    return found


def draw_regions(
    annotations: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int], *, height: int, width: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns the mask (height, width) of one image's annotations, and why regions couldn't be drawn.

    Args:
        annotations: the image's annotations as in the file.
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
        if annotation.get("iscrowd"):
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
