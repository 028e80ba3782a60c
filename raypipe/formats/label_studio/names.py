"""Names that the import from and the export to Label Studio share."""

from collections.abc import Sequence

BRUSH_LABELS = "brushlabels"
FROM_NAME = "mask"
TO_NAME = "image"
IMAGE_KEY = "image_id"
"""Key of the `image_id` in a task's data."""


def ignore_label(classes: Sequence[str]) -> str:
    """Returns a label for ignored pixels that is no class's name."""
    name = "ignore"
    while name in classes:
        name = f"_{name}_"
    return name
