"""Names that tasks for Label Studio and its exports share."""

from collections.abc import Sequence

BRUSH_LABELS = "brushlabels"
FROM_NAME = "mask"
TO_NAME = "image"
IMAGE_KEY = "image_id"
"""Where a task's data hold the `image_id`."""


def ignore_label(classes: Sequence[str]) -> str:
    """Name of the label for ignored pixels; another than any class's."""
    name = "ignore"
    while name in classes:
        name = f"_{name}_"
    return name
