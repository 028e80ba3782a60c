"""Names that the import from and the export to Label Studio share."""

from collections.abc import Sequence

BRUSH_LABELS = "brushlabels"
FROM_NAME = "mask"
TO_NAME = "image"
IMAGE_KEY = "image_id"
"""Key of the `image_id` in a task's data."""
SPLIT_KEY, LABELS_KEY = "split", "labels"
"""Keys of what the manifest says of the image."""
SIZE_KEYS = ("height", "width")
"""Keys of the mask's size, which no region says where there is none."""


def ignore_label(classes: Sequence[str]) -> str:
    """Returns a label for ignored pixels that is no class's name."""
    name = "ignore"
    while name in classes:
        name = f"_{name}_"
    return name
