"""Imports a COCO file: its images and labels, and on demand its regions as masks.

https://cocodataset.org/#format-data. Classes come in the order of the categories' ids, which may be any numbers. An
image's labels are the categories of its annotations other than crowds; without annotations it shows no object. A mask
holds the objects' regions, smaller ones on top of larger ones; a crowd is 255 (ignored) where no object lies on it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.images import check_size
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.merge import with_masks, write_mask
from raypipe.formats.coco.regions import decode_segmentation
from raypipe.formats.json_file import read_json, take
from raypipe.formats.listing import without_suffix
from raypipe.schema import BACKGROUND, IGNORE, SUPERVISED
from raypipe.uri import absolute, is_relative, name_of

WRITERS = 8
"""Number of masks that are drawn and written at the same time."""


def import_coco(
    annotations: str,
    images: str,
    *,
    split: str | None = None,
    masks: str | None = None,
    manifest: Manifest | None = None,
) -> Manifest:
    """Returns a manifest of a COCO file's images, or the given manifest with the file's masks.

    The `image_id` is the one that `raypipe export coco` wrote, else the image file's name without its ending.

    Args:
        annotations: URI of the JSON file.
        images: URI of the folder that relative file names start from.
        split: split of all images.
        masks: URI of the folder to write masks into; None writes none.
        manifest: its rows get the masks; categories and classes are matched by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's, an annotation is damaged, or `manifest` lacks an image or a class.
    """
    if manifest is not None and masks is None:
        raise ValueError("got a manifest but no folder for its masks: name one (`masks`)")
    content = read_json(annotations)
    categories = _categories(content, annotations)
    classes = manifest.classes if manifest is not None else tuple(categories.values())
    class_ids = {number: class_ids_of([name], classes)[0] for number, name in categories.items()}
    of_images: dict[int, list[dict[str, Any]]] = {
        take(image, "id", int, place=f"{annotations}: images[{index}]"): []
        for index, image in enumerate(content["images"])
    }
    if len(of_images) < len(content["images"]):
        raise ValueError(f"{annotations}: several images have the same id")
    for index, annotation in enumerate(take(content, "annotations", list, place=annotations)):
        place = f"{annotations}: annotations[{index}]"
        number, category = (take(annotation, name, int, place=place) for name in ("image_id", "category_id"))
        if number not in of_images or category not in class_ids:
            raise ValueError(f"{place}: there is no image {number} or no category {category}")
        of_images[number].append(annotation)
    rows = [_row(image, images, split, annotations) for image in content["images"]]
    for row, own in zip(rows, of_images.values(), strict=True):
        row["labels"] = sorted({categories[one["category_id"]] for one in own if not one.get("iscrowd")})
    if masks is not None:
        jobs = zip(rows, content["images"], of_images.values(), strict=True)
        with ThreadPoolExecutor(WRITERS) as threads:
            uris = list(threads.map(lambda job: _write_mask(*job, class_ids=class_ids, folder=masks), jobs))
        if manifest is not None:
            return with_masks(manifest, {row["image_id"]: uri for row, uri in zip(rows, uris, strict=True)})
        for row, uri in zip(rows, uris, strict=True):
            row |= {"mask_uri": uri, "supervision": SUPERVISED}
    return Manifest.from_rows(rows, classes)


def draw_regions(
    annotations: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int], *, height: int, width: int
) -> NDArray[np.uint8]:
    """Returns the mask (height, width) of one image's annotations.

    Args:
        annotations: the image's annotations as in the file.
        class_ids: class id by category id.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: a region is damaged; the error names its annotation.
    """
    mask = np.full((height, width), BACKGROUND, np.uint8)
    objects = []
    for annotation in annotations:
        try:
            region = decode_segmentation(annotation.get("segmentation"), height=height, width=width)
        except ValueError as error:
            raise ValueError(f"annotation {annotation.get('id')}: {error}") from error
        if annotation.get("iscrowd"):
            mask[region] = IGNORE
        else:
            objects.append((np.count_nonzero(region), class_ids[annotation["category_id"]], region))
    for _, class_id, region in sorted(objects, key=lambda item: -item[0]):
        mask[region] = class_id
    return mask


def _categories(content: Any, uri: str) -> dict[int, str]:
    """Returns the categories' names by id, in ascending order of the ids."""
    take(content, "images", list, place=uri)
    found: dict[int, str] = {}
    for index, category in enumerate(take(content, "categories", list, place=uri)):
        place = f"{uri}: categories[{index}]"
        found[take(category, "id", int, place=place)] = take(category, "name", str, place=place)
    return dict(sorted(found.items()))


def _row(image: Mapping[str, Any], folder: str, split: str | None, uri: str) -> dict[str, Any]:
    name = take(image, "file_name", str, place=f"{uri}: image {image['id']}")
    place = absolute(name, absolute(folder))
    exported_id = image.get("raypipe_id")
    image_id = (
        exported_id if isinstance(exported_id, str) else without_suffix(name if is_relative(name) else name_of(place))
    )
    return {"image_id": image_id, "image_uri": place, "split": split}


def _write_mask(
    row: Mapping[str, Any],
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    *,
    class_ids: Mapping[int, int],
    folder: str,
) -> str:
    place = f"image {row['image_id']}"
    height, width = (take(image, name, int, place=place) for name in ("height", "width"))
    try:
        check_size(height, width)
        mask = draw_regions(annotations, class_ids, height=height, width=width)
    except ValueError as error:
        raise ValueError(f"{place}, {error}") from error
    return write_mask(mask, folder, row["image_id"])
