"""Reads Label Studio's tasks as a dataset: images, and brush regions as masks.

https://labelstud.io/guide/export. A task has the mask of its annotation that was changed last, or else that of its
first prediction, as `raypipe export labelstudio` writes it. The order of the classes is that of the labels in
`config.xml`, the project's labelling configuration, where that lies beside the tasks.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree as ET

from raypipe import storage, uri
from raypipe.data.merge import write_mask
from raypipe.formats.draft import Draft, Drawn, draft_table
from raypipe.formats.exported import READERS
from raypipe.formats.json_file import read_json, take
from raypipe.formats.label_studio.names import BRUSH_LABELS, IMAGE_KEY, LABELS_KEY, SIZE_KEYS, SPLIT_KEY, ignore_label
from raypipe.formats.label_studio.read import draw_results, last_annotation, regions_of, size_of_image
from raypipe.schema import BACKGROUND, IGNORE

CONFIG = "config.xml"


def read_tasks(source: str, *, masks: str | None = None) -> Draft:
    """Returns the images of Label Studio's tasks.

    Args:
        source: absolute URI of a JSON file of tasks, or of a folder of such files.
        masks: absolute URI of the folder to write masks into; None writes none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file holds no tasks, or a task is damaged.
    """
    is_file = uri.suffix_of(source) == ".json"
    folder = uri.parent(source) if is_file else source
    files = [source] if is_file else storage.list_files(source, suffix=".json")
    files = [one for one in files if "_raypipe" not in (uri.relative(one, folder) or "").split("/")]
    if not files:
        raise FileNotFoundError(f"{source} holds no .json files of tasks")
    tasks, places = [], []
    for file in files:
        content = read_json(file)
        if not isinstance(content, list):
            raise ValueError(f'{file} holds no list of tasks: export the project as "JSON"')  # noqa: TRY004 - the file's mistake
        tasks += content
        places += [f"{file}: task {index} (counted from 0)" for index in range(len(content))]
    classes = _classes(storage.join(folder, CONFIG))
    skipped: dict[str, list[str]] = {}
    results = [_results(task, place, skipped) for task, place in zip(tasks, places, strict=True)]
    rows = [_row(task, own, place) for task, own, place in zip(tasks, results, places, strict=True)]
    ignored = ignore_label(classes or ())

    def draw(numbers: Sequence[int], ids: Sequence[str], class_ids: Mapping[str, int]) -> Drawn:
        def id_of(name: str) -> int:
            return IGNORE if name == ignored else class_ids.get(name, BACKGROUND)

        def one(number: int, image_id: str) -> str | None:
            assert masks is not None
            own, data = results[number], tasks[number]["data"]
            if own is None:
                return None
            try:
                mask = draw_results(
                    own, id_of, size=lambda: _told_size(data) or size_of_image(rows[number]["image_uri"])
                )
            except (ValueError, OSError) as error:
                damaged.append(f"{places[number]}: {error}")
                return None
            return write_mask(mask, masks, image_id)

        damaged: list[str] = []
        with ThreadPoolExecutor(READERS) as threads:
            return Drawn(list(threads.map(one, numbers, ids)), {"masks that can't be drawn": damaged})

    return Draft(
        table=draft_table(rows),
        source=source,
        root=folder,
        place=places.__getitem__,
        classes=classes,
        classes_from=storage.join(folder, CONFIG),
        draw=None if masks is None else draw,
        skipped=skipped,
    )


def _classes(config: str) -> tuple[str, ...] | None:
    """Names of the brush's labels but for the one that means "ignore"; None without a configuration."""
    if not storage.exists(config):
        return None
    content = storage.read_bytes(config)
    if b"<!DOCTYPE" in content or b"\0" in content:
        raise ValueError(f"{config} has a document type declaration or isn't UTF-8: mend it")
    try:
        tree = ET.fromstring(content)  # noqa: S314 - without a document type nothing is expanded
    except ET.ParseError as error:
        raise ValueError(f"{config} is not XML: {error}") from error
    names = [label.get("value", "") for label in tree.iterfind(".//BrushLabels/Label")]
    kept = [name for name in names if name != ignore_label([other for other in names if other != name])]
    return tuple(kept) or None


def _results(task: Any, place: str, skipped: dict[str, list[str]]) -> list[Any] | None:
    """The regions of a task; None where nobody has drawn any, or they can't be read."""
    try:
        annotation = last_annotation(task, place) if isinstance(task, dict) and "annotations" in task else None
        if annotation is None:
            predictions = task.get("predictions") if isinstance(task, dict) else None
            annotation = predictions[0] if isinstance(predictions, list) and predictions else None
        return None if annotation is None else regions_of(annotation, place)
    except ValueError as error:
        skipped.setdefault("masks of tasks whose regions can't be read", []).append(f"{place}: {error}")
        return None


def _row(task: Any, results: Sequence[Any] | None, place: str) -> dict[str, Any]:
    data = take(task, "data", dict, place=place)
    image_id, labels, split = data.get(IMAGE_KEY), data.get(LABELS_KEY), data.get(SPLIT_KEY)
    if LABELS_KEY not in data and results is not None:
        labels = sorted({str(name) for one in results for name in one.get("value", {}).get(BRUSH_LABELS, [])})
        labels = [name for name in labels if name != ignore_label(())]
    return {
        "image_id": image_id if isinstance(image_id, str) else None,
        "image_uri": str(data.get("image") or ""),
        "labels": labels if isinstance(labels, list) else None,
        "split": split if isinstance(split, str) else None,
    }


def _told_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = (data.get(name) for name in SIZE_KEYS)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
