"""Puts the masks of a COCO file that comes back from a tool of annotation into the manifest that it was made from.

CVAT gives such a file away in a zip ("COCO 1.0"), as `annotations/instances_<subset>.json`.
"""

from collections.abc import Mapping, Sequence

from raypipe import uri
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.merge import Corrections
from raypipe.formats.archive import open_archive
from raypipe.formats.coco.content import open_coco
from raypipe.formats.coco.draw import draw_masks
from raypipe.schema import BACKGROUND


def import_corrected(
    annotations: str, manifest: Manifest, *, masks: str
) -> tuple[Manifest, Mapping[str, Sequence[str]]]:
    """Returns the manifest with the masks of a COCO file, and what was left out, by reason.

    Categories and classes are matched by name.

    An image belongs to the row of its `raypipe_id`, else of its file name (`Corrections.row_of`).

    Args:
        annotations: absolute URI of the JSON file, or of a zip that holds such files.
        manifest: its rows get the masks.
        masks: absolute URI of the folder to write masks into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's, or the manifest lacks a class, or nothing can be taken.
    """
    corrections = Corrections(manifest, masks)
    for file in _files(annotations):
        coco = open_coco(file)
        used = {one["category_id"] for own in coco.annotations for one in own or ()}
        class_ids = {
            number: BACKGROUND if name.casefold() == "background" else class_ids_of([name], manifest.classes)[0]
            for number, name in coco.names.items()
            if number in used
        }
        ids = {
            index: image_id
            for index, image in enumerate(coco.images)
            if (
                image_id := corrections.row_of(
                    image.get("raypipe_id"), image["file_name"], place=f"{file}, image {image['id']}"
                )
            )
        }
        drawn = draw_masks(coco, masks, images=uri.parent(annotations), class_ids=class_ids, ids=ids)
        for image_id, place in zip(ids.values(), drawn.uris, strict=True):
            if place:
                corrections.add_written(image_id, place)
        for reason, names in [*coco.skipped.items(), *drawn.skipped.items()]:
            corrections.leave_out(reason, names)
    return corrections.merged(), corrections.skipped


def _files(annotations: str) -> list[str]:
    """The JSON files that a URI names: itself, or those in a zip."""
    if uri.suffix_of(annotations) != ".zip":
        return [annotations]
    with open_archive(annotations) as archive:
        names = [name for name in archive.names() if name.lower().endswith(".json")]
    if not names:
        raise ValueError(f'{annotations} holds no .json file of COCO\'s: export from CVAT as "COCO 1.0"')
    return [f"zip://{name}::{annotations}" for name in names]
