"""Puts the masks of a COCO file that comes back from a tool of annotation into the manifest that it was made from."""

from raypipe import uri
from raypipe.data.manifest import Manifest, class_ids_of
from raypipe.data.merge import RowsByName, with_masks
from raypipe.formats.coco.read import draw_masks, open_coco


def import_corrected(annotations: str, manifest: Manifest, *, masks: str) -> Manifest:
    """Returns the manifest with the masks of a COCO file; categories and classes are matched by name.

    An image belongs to the row of its `raypipe_id`, else of its file name (`RowsByName`).

    Args:
        annotations: absolute URI of the JSON file.
        manifest: its rows get the masks.
        masks: absolute URI of the folder to write masks into.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't COCO's, or the manifest lacks an image or a class.
    """
    coco = open_coco(annotations)
    class_ids = {number: class_ids_of([name], manifest.classes)[0] for number, name in coco.names.items()}
    rows = RowsByName(manifest)
    ids = {
        image["id"]: rows.id_of(
            image.get("raypipe_id"), image["file_name"], place=f"{annotations}, image {image['id']}"
        )
        for image in coco.images
    }
    drawn = draw_masks(
        coco, masks, images=uri.parent(annotations), class_ids=class_ids, name=lambda image: ids[image["id"]]
    )
    found = {ids[image["id"]]: place for image, place in zip(coco.images, drawn, strict=True) if place is not None}
    return with_masks(manifest, found)
