"""Reads a folder per class: `<root>/<class>/**/<image>`."""

from raypipe.formats.draft import Draft, draft_table
from raypipe.formats.listing import list_images
from raypipe.words import counted

_STRAY = "images are in no class's folder"


def read_folder(root: str, *, split: str | None = None, split_folders: bool = False) -> Draft:
    """Returns the images in folders that are named after their class, at any depth.

    Every image has one label.

    Args:
        root: absolute URI of the folder.
        split: the split of all images.
        split_folders: the first level names the split, the second the class: `<root>/<split>/<class>/**/<image>`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no images, or none of them is in a class's folder.
    """
    levels = 2 if split_folders else 1
    listing = list_images(root)
    stray = [path for path in listing.images if path.count("/") < levels]
    rows = []
    for path, place in listing.images.items():
        folders = path.split("/")
        if len(folders) > levels:
            own = folders[0] if split_folders else split
            rows.append({"image_uri": place, "labels": [folders[levels - 1]], "split": own})
    expected = f"{'<split>/' * split_folders}<class>/<image> below {root}"
    if not rows:
        raise ValueError(
            f"{counted(len(stray), _STRAY)}, such as {stray[0]!r}: expected "
            f"{expected}. Labels in a CSV are read by `raypipe import table`, whose --images names the folder"
        )
    skipped = {**listing.skipped, **({f"images in no class's folder (expected {expected})": stray} if stray else {})}
    return Draft(
        table=draft_table(rows),
        source=root,
        root=root,
        place=lambda number: str(rows[number]["image_uri"]),
        are_there=True,
        skipped=skipped,
    )
