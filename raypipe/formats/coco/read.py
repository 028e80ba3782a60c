"""Reads a COCO file as a dataset: its images and labels, and on demand its regions as masks.

Classes come in the order of the categories' ids, which may be any numbers. An image's labels are the categories of its
annotations other than crowds; without annotations it shows no object.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from raypipe import storage, uri
from raypipe.formats.coco.content import open_coco
from raypipe.formats.coco.draw import draw_masks
from raypipe.formats.draft import Draft, Drawn, draft_table, join_drafts
from raypipe.formats.listing import without_suffix
from raypipe.schema import BACKGROUND


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
