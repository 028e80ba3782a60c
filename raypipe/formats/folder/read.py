"""Imports a folder per class: `<root>/<class>/**/<image>`."""

from collections.abc import Sequence

from raypipe.data.manifest import Manifest
from raypipe.formats.listing import find_classes, list_images


def import_folder(
    root: str, *, split: str | None = None, split_folders: bool = False, classes: Sequence[str] | None = None
) -> Manifest:
    """Returns a manifest of the images in folders that are named after their class, at any depth.

    Every image has one label. Its `image_id` is its path below the root, such as "cat/indoor/7.jpg".

    Args:
        root: URI of the folder.
        split: the split of all images.
        split_folders: the first level names the split, the second the class: `<root>/<split>/<class>/**/<image>`.
        classes: class names in the order of their ids; the folders' names in alphabetical order by default.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no images, or some of them are in no class's folder.
    """
    levels = 2 if split_folders else 1
    images = list_images(root)
    if stray := [path for path in images if path.count("/") < levels]:
        raise ValueError(
            f"{len(stray)} images are in no class's folder, such as {stray[0]!r}: "
            f"expected {'<split>/' * split_folders}<class>/<image> below {root}. Labels in a CSV are read by "
            "`raypipe import table`, whose --images names the folder"
        )
    rows = []
    for path, uri in images.items():
        folders = path.split("/")
        found = folders[0] if split_folders else split
        rows.append({"image_id": path, "image_uri": uri, "labels": [folders[levels - 1]], "split": found})
    return Manifest.from_rows(rows, find_classes(rows, classes))
