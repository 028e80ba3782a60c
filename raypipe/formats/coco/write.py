"""Exports COCO: one JSON file for each split, with regions as run lengths.

https://cocodataset.org/#format-data. An annotation is a connected component of a class (8 neighbours) or, without
`instances`, all pixels of a class, as in COCO's "stuff". Background is what no annotation covers. `score` is the mean
confidence.

Ignored pixels become a crowd region (`iscrowd` 1) of each class in the image, or of the first class if the image has
none: COCO's evaluation counts what is found of a class in its crowd regions neither as right nor as wrong. The field
`raypipe_id` keeps the `image_id`, `raypipe_labels` and `raypipe_split` labels and split as the manifest has them, and
`coco_url` the image's URI; `id` is the position in the manifest, from 1. `file_name` counts from `images/` where images
are copied, else from the folder that all photographs lie in, which `info.image_folder` names; where they share none, it
is the URI.
"""

import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from raypipe.formats.base import ExportRow, Format, Item, MaskRow, Rendered, Rows, SplitFiles
from raypipe.formats.components import Region, class_regions, components
from raypipe.schema import IGNORE
from raypipe.uri import relative

IMAGE, ANNOTATION = "image", "annotation"


class Coco(Format):
    """`annotations/<split>.json`; images, if exported, in `images/`.

    Raises:
        ValueError: pycocotools isn't installed.
    """

    names_from_folder = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if find_spec("pycocotools") is None:
            raise ValueError("COCO's run lengths need pycocotools: run pip install -e '.[export]' in raypipe's clone")

    def image_folder(self, folder: str) -> str | None:  # noqa: ARG002
        """Returns one folder for all splits."""
        return "images"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the image's entry and its annotations, which get their ids in `finish`."""
        height, width = row.mask.shape
        image = {
            "id": row.number,
            "file_name": self._file_name(row),
            "height": height,
            "width": width,
            "coco_url": row.image_uri,
            "raypipe_id": row.image_id,
            "raypipe_labels": row.labels,
            "raypipe_split": row.split,
        }
        items = [Item(IMAGE, _json(image))]
        items += [Item(ANNOTATION, _json(annotation)) for annotation in self._annotations(row)]
        return Rendered(items=items)

    def finish(self, rows: Rows, out: str) -> None:
        """Joins the parts and numbers the annotations from 1."""
        with SplitFiles(out, "annotations/{split}.json") as files:
            _write_array(files, ((row.folder, part) for row in rows() for part in row.parts(IMAGE)), self._head())
            for file in files.files.values():
                file.write(b'],\n"annotations": [\n')
            numbered = (
                (row.folder, b'{"id": %d, ' % number + part[1:])
                for number, (row, part) in enumerate(
                    ((row, part) for row in rows() for part in row.parts(ANNOTATION)), start=1
                )
            )
            _write_array(files, numbered, b"")
            for file in files.files.values():
                file.write(b"]}\n")

    def listed_file(self, row: ExportRow) -> str:
        """Returns the name of the copy, or the name that the JSON file has."""
        return super().listed_file(row) if self.options.copy_images else self._file_name(row)

    def _file_name(self, row: ExportRow) -> str:
        """The image's path from the folder that COCO's tools are told: of the copies, or of the photographs."""
        if self.options.copy_images:
            return self.image_name(row)
        path, root = self.image_path(row), self.options.image_root
        return (root and relative(path, root)) or path

    def _head(self) -> bytes:
        categories = [{"id": number, "name": name} for number, name in enumerate(self.classes, start=1)]
        info = {"description": "Exported by raypipe"}
        if self.options.image_root is not None:
            info["image_folder"] = self.options.image_root
        return b'{"info": %s,\n"categories": %s,\n"images": [\n' % (_json(info), _json(categories))

    def _annotations(self, row: MaskRow) -> Iterator[dict[str, Any]]:
        mask, class_ids = row.mask, row.class_ids
        regions: Iterable[Region]
        if self.options.instances:
            regions = components(mask, class_ids, min_area=self.options.min_area)
        else:
            regions = class_regions(mask, class_ids)
        for region in regions:
            pixels = region.full(mask.shape)
            annotation = _annotation(row, region, pixels) | {"category_id": region.class_id, "iscrowd": 0}
            score = row.mean_confidence(pixels)
            yield annotation if score is None else annotation | {"score": score}
        for region in class_regions(mask, [IGNORE]):
            annotation = _annotation(row, region, region.full(mask.shape))
            for class_id in class_ids or [1]:
                yield annotation | {"category_id": class_id, "iscrowd": 1}


def _annotation(row: MaskRow, region: Region, pixels: NDArray[np.bool_]) -> dict[str, Any]:
    height, width = region.pixels.shape
    return {
        "image_id": row.number,
        "segmentation": encode_run_lengths(pixels),
        "area": region.area,
        "bbox": [region.left, region.top, width, height],
    }


def encode_run_lengths(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """Returns COCO's compressed run lengths of a region (H, W)."""
    from pycocotools import mask as coco_mask  # an extra, which other formats don't need

    encoded = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": list(pixels.shape), "counts": encoded["counts"].decode()}


def _write_array(files: SplitFiles, parts: Iterable[tuple[str, bytes]], head: bytes) -> None:
    """Writes the parts of each split with commas between them, after `head`."""
    begun: set[str] = set()
    for split, part in parts:
        file: IO[bytes] = files[split]
        file.write(b",\n" if split in begun else head)
        file.write(part)
        begun.add(split)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
