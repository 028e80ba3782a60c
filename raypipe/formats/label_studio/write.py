"""Exports masks to Label Studio, where people correct them with the brush.

https://labelstud.io/guide/predictions and https://labelstud.io/tags/brushlabels. Each image becomes a task, whose
prediction has one region for each class. A region's score is its mean confidence, and the prediction's score that of
the whole mask. `config.xml` is the project's labelling configuration. Ignored pixels are a region with the label
"ignore", so that they can be painted too; `raypipe import labelstudio` makes them 255 again. Label Studio must be able
to read the images' URIs: for s3:// add the bucket to the project as source storage, for local files see its
LOCAL_FILES_SERVING_ENABLED.
"""

import json
from typing import Any
from xml.sax.saxutils import quoteattr

from raypipe import __version__, storage
from raypipe.formats.base import Format, Item, MaskRow, Rendered, Rows, write_text
from raypipe.formats.components import class_regions
from raypipe.formats.label_studio.brush import encode_brush
from raypipe.formats.label_studio.names import (
    BRUSH_LABELS,
    FROM_NAME,
    IMAGE_KEY,
    LABELS_KEY,
    SIZE_KEYS,
    SPLIT_KEY,
    TO_NAME,
    ignore_label,
)
from raypipe.formats.palette import voc_colors
from raypipe.schema import IGNORE

TASK = "task"
TASKS_PER_FILE = 500
"""Tasks in a file: Label Studio takes at most 250 MB, and the task of a large image may have some 100 kB."""


class LabelStudio(Format):
    """`tasks-<number>.json`, `config.xml`; images are never copied."""

    def render(self, row: MaskRow) -> Rendered:
        """Returns the task."""
        names = dict(enumerate(self.classes, start=1)) | {IGNORE: ignore_label(self.classes)}
        results = []
        for region in class_regions(row.mask, [*row.class_ids, IGNORE]):
            pixels = region.full(row.mask.shape)
            value = {"format": "rle", "rle": encode_brush(pixels), BRUSH_LABELS: [names[region.class_id]]}
            results.append(_result(row, region.class_id, value, row.mean_confidence(pixels)))
        prediction: dict[str, Any] = {"model_version": f"raypipe {__version__}", "result": results}
        score = row.mean_confidence(row.mask != IGNORE)
        if score is not None:
            prediction["score"] = score
        data = {"image": row.image_uri, IMAGE_KEY: row.image_id, SPLIT_KEY: row.split, LABELS_KEY: row.labels}
        data |= dict(zip(SIZE_KEYS, row.mask.shape, strict=True))
        task = json.dumps({"data": data, "predictions": [prediction]})
        return Rendered(items=[Item(TASK, task.encode())])

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the tasks and the labelling configuration."""
        tasks = (part for row in rows() for part in row.parts(TASK))
        task = next(tasks, None)
        number = 0
        while task is not None:
            with storage.writing(storage.join(out, f"tasks-{number:05d}.json")) as file:
                for index in range(TASKS_PER_FILE):
                    file.write((b",\n" if index else b"[\n") + task)
                    if (task := next(tasks, None)) is None:
                        break
                file.write(b"\n]\n")
            number += 1
        write_text(out, "config.xml", self._config())

    def _config(self) -> str:
        names = [*self.classes, ignore_label(self.classes)]
        colors = [*voc_colors()[1 : len(names)].tolist(), [255, 255, 255]]
        labels = [
            f"    <Label value={quoteattr(name)} background={quoteattr('#{:02x}{:02x}{:02x}'.format(*color))}/>"
            for name, color in zip(names, colors, strict=True)
        ]
        head = [
            "<View>",
            f'  <Image name="{TO_NAME}" value="$image" zoom="true"/>',
            f'  <BrushLabels name="{FROM_NAME}" toName="{TO_NAME}">',
        ]
        return "\n".join([*head, *labels, "  </BrushLabels>", "</View>", ""])


def _result(row: MaskRow, class_id: int, value: dict[str, Any], score: float | None) -> dict[str, Any]:
    height, width = row.mask.shape
    result = {
        "id": f"{row.number}-{class_id}",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "type": BRUSH_LABELS,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return result if score is None else result | {"score": score}
