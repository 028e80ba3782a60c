"""Puts masks that come back from CVAT as "Segmentation mask 1.1" into the manifest that they were made from.

https://docs.cvat.ai/docs/dataset_management/formats/format-smask/. `labelmap.txt` names classes and colours, and
`SegmentationClass/` has a mask in these colours for each image, named as the image. Classes are matched by name; the
label "ignore" or "void" becomes 255.
"""

import posixpath
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe.data.color_masks import decode_color_mask
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.merge import Corrections
from raypipe.data.opening import ImageError
from raypipe.formats.archive import open_archive
from raypipe.formats.labelmap import LabelMap, parse_labelmap
from raypipe.formats.listing import without_suffix
from raypipe.schema import BACKGROUND, IGNORE

LABELMAP = "labelmap.txt"
MASKS = "SegmentationClass"


def import_corrected_masks(
    source: str, manifest: Manifest, *, masks: str
) -> tuple[Manifest, Mapping[str, Sequence[str]]]:
    """Returns the manifest with the masks of an export of CVAT, and what was left out, by reason.

    Args:
        source: absolute URI of the zip, or of the folder that it was unpacked into.
        manifest: its rows get the masks.
        masks: absolute URI of the folder to write masks into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such export, a class in a mask is none of the manifest's, or nothing can be taken.
    """
    corrections, is_empty = Corrections(manifest, masks), True
    with open_archive(source) as archive:
        names = archive.names()
        top = next((posixpath.dirname(name) for name in names if posixpath.basename(name) == LABELMAP), None)
        if top is None:
            raise ValueError(
                f'{source} has no {LABELMAP}: export the task or project from CVAT as "Segmentation mask 1.1"'
            )
        labelmap = parse_labelmap(archive.read(posixpath.join(top, LABELMAP)).decode("utf-8-sig"))
        folder = posixpath.join(top, MASKS) + "/"
        for name in names:
            if not name.startswith(folder) or not name.lower().endswith(".png"):
                continue
            place, is_empty = f"{source}: {name}", False
            image_id = corrections.row_of(None, without_suffix(name.removeprefix(folder)), place=place)
            if image_id is None:
                continue
            try:
                values = _decode(archive.read(name), labelmap)
            except ValueError as error:
                corrections.leave_out("masks that can't be read", [f"{place}: {error}"])
                continue
            corrections.add(image_id, _renumbered(values, labelmap, manifest.classes, place))
    if is_empty:
        raise ValueError(f"{source} has no masks below {folder}")
    return corrections.merged(), corrections.skipped


def _decode(data: bytes, labelmap: LabelMap) -> NDArray[np.uint8]:
    """A mask's ids in the labelmap (H, W)."""
    values = decode_color_mask(data, labelmap.colors) if labelmap.colors else None
    if values is None:
        values = decode_mask(data)
        if (unknown := values[(values > len(labelmap.classes)) & (values != IGNORE)]).size:
            raise ImageError(f"it has the value {int(unknown[0])}, but {LABELMAP} has {len(labelmap.classes)} classes")
    return values


def _renumbered(values: NDArray[np.uint8], labelmap: LabelMap, classes: Sequence[str], place: str) -> NDArray[np.uint8]:
    """The mask with the manifest's ids."""
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    for value in np.unique(values).tolist():
        if value not in (BACKGROUND, IGNORE):
            try:
                (table[value],) = class_ids_of([labelmap.classes[value - 1]], classes)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
    return table[values]
