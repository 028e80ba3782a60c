"""Imports masks that were corrected in Label Studio into the manifest that they were made from.

https://labelstud.io/guide/export. The corrections are the brush regions of a JSON export. Of a task's annotations the
one that was changed last counts, cancelled ones don't; a task without any leaves its row as it is. Later regions cover
earlier ones, the label "ignore" becomes 255, and pixels without a region are background.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import check_size, decode_image
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.merge import with_masks, write_mask
from raypipe.formats.json_file import read_json, take
from raypipe.formats.label_studio.brush import decode_brush
from raypipe.formats.label_studio.names import BRUSH_LABELS, IMAGE_KEY, ignore_label
from raypipe.schema import BACKGROUND, IGNORE

OTHER_REGIONS = ("polygonlabels", "rectanglelabels", "ellipselabels", "keypointlabels", "brush", "polygon")
"""Types of region that can't be read; an export that has some is refused, since they would be lost."""

log = logging.getLogger(__name__)


def import_label_studio(export: str, manifest: Manifest, *, masks: str) -> Manifest:
    """Returns the manifest with the corrected masks.

    A task belongs to the row that has its `image_id`, or else its image's URI.

    Args:
        export: URI of the JSON export.
        manifest: the rows.
        masks: URI of a folder to write masks into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no export of Label Studio, a task is damaged or belongs to no row, or a label is no
            class.
    """
    content = read_json(export)
    if not isinstance(content, list):
        raise ValueError(f'{export} holds no list of tasks: export the project as "JSON"')  # noqa: TRY004 - the file's mistake
    image_uris = dict(zip(*(manifest.table[name].to_pylist() for name in ("image_id", "image_uri")), strict=True))
    ids_by_uri = {uri: image_id for image_id, uri in image_uris.items()}
    found: dict[str, str] = {}
    for index, task in enumerate(content):
        place = f"{export}: task {index} (counted from 0)"
        data = take(task, "data", dict, place=place)
        name = str(data.get(IMAGE_KEY) or data.get("image"))
        image_id = name if name in image_uris else ids_by_uri.get(name)
        if image_id is None:
            raise ValueError(f"{place} belongs to no row of the manifest: {name[:200]!r}")
        annotation = _last_annotation(task, place)
        if annotation is None:
            continue
        try:
            results = [result for result in take(annotation, "result", list, place=place) if _is_region(result)]
            mask = _draw(results, manifest.classes, image_uri=image_uris[image_id])
        except ValueError as error:
            raise ValueError(f"{place}, {image_id!r}: {error}") from error
        found[image_id] = write_mask(mask, masks, image_id)
    log.info("%s: %d of %d tasks have a mask", export, len(found), len(content))
    return with_masks(manifest, found)


def _last_annotation(task: Any, place: str) -> Any:
    annotations = take(task, "annotations", list, place=place)
    finished = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return max(finished, key=lambda one: (str(one.get("updated_at", "")), finished.index(one)), default=None)


def _is_region(result: Any) -> bool:
    """Returns True for a brush region, and False for choices, relations and the like."""
    kind = result.get("type") if isinstance(result, dict) else None
    if kind in OTHER_REGIONS:
        raise ValueError(f"a region is of type {kind!r}; only {BRUSH_LABELS!r} can be read: paint it with the brush")
    return kind == BRUSH_LABELS


def _draw(results: Sequence[Mapping[str, Any]], classes: Sequence[str], *, image_uri: str) -> NDArray[np.uint8]:
    height, width = _size(results, image_uri)
    mask = np.full((height, width), BACKGROUND, np.uint8)
    for result in results:
        if result.get("image_rotation"):
            raise ValueError(
                "the picture was rotated in Label Studio, so its regions don't lie on the image: turn it back"
            )
        value = take(result, "value", dict, place="a region")
        names = take(value, BRUSH_LABELS, list, place="a region")
        if len(names) != 1:
            raise ValueError(f"expected one label for each region, got {names}")
        own = names[0] == ignore_label(classes)
        region = decode_brush(take(value, "rle", list, place="a region"), height=height, width=width)
        mask[region] = IGNORE if own else class_ids_of([str(names[0])], classes)[0]
    return mask


def _size(results: Sequence[Mapping[str, Any]], image_uri: str) -> tuple[int, int]:
    """Returns the height and width of all regions, or the image's if there are none."""
    sizes = {
        tuple(take(result, name, int, place="a region") for name in ("original_height", "original_width"))
        for result in results
    }
    if len(sizes) > 1:
        raise ValueError(f"the regions are of pictures of different sizes: {sorted(sizes)}")
    if not sizes:
        image = decode_image(storage.read_bytes(image_uri), max_side=1)
        return image.original_height, image.original_width
    ((height, width),) = sizes
    check_size(height, width)
    return height, width
