"""Imports masks that were corrected in Label Studio into the manifest that they were made from.

https://labelstud.io/guide/export. The corrections are the brush regions of a JSON export. Of a task's annotations the
one that was changed last counts, cancelled ones don't; a task without any leaves its row as it is. Later regions cover
earlier ones, the label "ignore" becomes 255, and pixels without a region are background.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import read_shape
from raypipe.data.manifest import Manifest, UnknownLabel, class_ids_of
from raypipe.data.merge import Corrections
from raypipe.data.opening import check_size
from raypipe.formats.json_file import read_json, take
from raypipe.formats.label_studio.brush import decode_brush
from raypipe.formats.label_studio.names import BRUSH_LABELS, IMAGE_KEY, ignore_label
from raypipe.schema import BACKGROUND, IGNORE

OTHER_REGIONS = ("polygonlabels", "rectanglelabels", "ellipselabels", "keypointlabels", "brush", "polygon")
"""Types of region that can't be read; a task that has some is left out, since they would be lost."""


def import_label_studio(export: str, manifest: Manifest, *, masks: str) -> tuple[Manifest, Mapping[str, Sequence[str]]]:
    """Returns the manifest with the corrected masks, and what was left out, by reason.

    A task belongs to the row that has its `image_id`, or else its image's URI or name (`Corrections.row_of`).

    Args:
        export: URI of the JSON export.
        manifest: the rows.
        masks: URI of a folder to write masks into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no export of Label Studio, a label is no class, or nothing can be taken.
    """
    content = read_json(export)
    if not isinstance(content, list):
        raise ValueError(f'{export} holds no list of tasks: export the project as "JSON"')  # noqa: TRY004 - the file's mistake
    image_uris = dict(zip(*(manifest.table[name].to_pylist() for name in ("image_id", "image_uri")), strict=True))
    corrections = Corrections(manifest, masks)
    ignored = ignore_label(manifest.classes)

    def id_of(name: str) -> int:
        return IGNORE if name == ignored else class_ids_of([name], manifest.classes)[0]

    for index, task in enumerate(content):
        place = f"{export}: task {index} (counted from 0)"
        try:
            data = take(task, "data", dict, place=place)
            annotation = last_annotation(task, place)
            if annotation is None:
                continue
            image_id = corrections.row_of(data.get(IMAGE_KEY), str(data.get("image")), place=place)
            if image_id is None:
                continue
            mask = draw_results(regions_of(annotation, place), id_of, size=partial(size_of_image, image_uris[image_id]))
        except UnknownLabel as error:
            raise ValueError(f"{place}: {error}") from error
        except (ValueError, FileNotFoundError) as error:
            reason = str(error).removeprefix(f"{place}: ")
            corrections.leave_out("tasks that can't be read", [f"{place}: {reason}"])
            continue
        corrections.add(image_id, mask)
    return corrections.merged(), corrections.skipped


def last_annotation(task: Any, place: str) -> Any:
    """Returns the annotation of a task that was changed last; None if it has none that is finished.

    Raises:
        ValueError: the task has no list of annotations.
    """
    annotations = take(task, "annotations", list, place=place)
    finished = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return max(finished, key=lambda one: (str(one.get("updated_at", "")), finished.index(one)), default=None)


def regions_of(annotation: Any, place: str) -> list[Any]:
    """Returns the brush regions of an annotation or a prediction.

    Raises:
        ValueError: it has none, or others that can't be read.
    """
    return [result for result in take(annotation, "result", list, place=place) if _is_region(result)]


def _is_region(result: Any) -> bool:
    """Returns True for a brush region, and False for choices, relations and the like."""
    kind = result.get("type") if isinstance(result, dict) else None
    if kind in OTHER_REGIONS:
        raise ValueError(f"a region is of type {kind!r}; only {BRUSH_LABELS!r} can be read: paint it with the brush")
    return kind == BRUSH_LABELS


def draw_results(
    results: Sequence[Mapping[str, Any]], id_of: Callable[[str], int], *, size: Callable[[], tuple[int, int]]
) -> NDArray[np.uint8]:
    """Returns the mask (height, width) of brush regions; later ones cover earlier ones.

    Args:
        results: the regions.
        id_of: returns the class id of a label, or 255.
        size: returns height and width where there are no regions.

    Raises:
        ValueError: a region is damaged.
    """
    height, width = _size(results) or size()
    check_size(height, width)
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
        region = decode_brush(take(value, "rle", list, place="a region"), height=height, width=width)
        mask[region] = id_of(str(names[0]))
    return mask


def size_of_image(image_uri: str) -> tuple[int, int]:
    """Returns height and width of an image, as it is shown.

    Raises:
        OSError: (or a ValueError) it can't be read.
    """
    shape = read_shape(storage.read_bytes(image_uri))
    return shape.height, shape.width


def _size(results: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Returns the height and width of all regions; None if there are none."""
    sizes = {
        (
            int(take(result, "original_height", int, place="a region")),
            int(take(result, "original_width", int, place="a region")),
        )
        for result in results
    }
    if len(sizes) > 1:
        raise ValueError(f"the regions are of pictures of different sizes: {sorted(sizes)}")
    return next(iter(sizes), None)
