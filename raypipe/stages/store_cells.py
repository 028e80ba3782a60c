"""Stores all that walks start from, so that many of them can be tried and no network runs again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import decode_cam, decode_scores, encode_scores
from raypipe.data.shards import Place, RowReader
from raypipe.ops.affinity import within_radius
from raypipe.schema import CELLS, columns
from raypipe.stages.base import Row
from raypipe.stages.cells import Cells, cell_colours
from raypipe.stages.decode import pixels_of
from raypipe.stages.propagate import WalkStage
from raypipe.stages.walk_scores import SEPARATIONS, SeenImage, WalkScores

STORED: pa.Schema = columns(CELLS, "grid_height", "grid_width", "features", "colours", "affinity")
"""Columns that this stage writes."""


@dataclass
class LabelledImage:
    """An image on its way; pixels are None where no label asks for a walk."""

    pixels: NDArray[np.uint8] | None


@dataclass(kw_only=True)
class StoreCells(WalkStage[LabelledImage]):
    """Features, colours and affinities of an image's cells; null without labels."""

    radius: int
    """Reach of the affinities in cells, the longest of any walk."""

    reads = ("image", "class_ids")
    writes = STORED

    def prepare(self, row: Row) -> LabelledImage:
        """Decodes the image."""
        return LabelledImage(pixels_of(row, max_side=self.max_side) if row["class_ids"] else None)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[LabelledImage]) -> list[Row]:
        """Encodes the cells."""
        found = iter(self.source([image.pixels for image in prepared if image.pixels is not None]))
        return [
            dict.fromkeys(STORED.names) if image.pixels is None else self._encode(image.pixels, next(found))
            for image in prepared
        ]

    def _encode(self, pixels: NDArray[np.uint8], cells: Cells) -> Row:
        features = cells.features.float().cpu().numpy()
        return {
            "grid_height": features.shape[1],
            "grid_width": features.shape[2],
            "features": features.astype("<f2").tobytes(),
            "colours": encode_scores(cell_colours(pixels).numpy()),
            "affinity": encode_scores(cells.affinity(radius=self.radius).cpu().numpy()),
        }


def stored_image(row: Row) -> SeenImage:
    """An image from a row of `CELLS`, ready for walks of the stored radius or less."""
    cells, colours = None, None
    if row["features"] is not None:
        height, width = row["grid_height"], row["grid_width"]
        features = np.frombuffer(row["features"], "<f2").reshape(-1, height, width).astype(np.float32)
        affinity, colours = (
            torch.from_numpy(decode_scores(row[name], height=height, width=width)) for name in ("affinity", "colours")
        )

        def pair(_: Tensor, *, radius: int) -> Tensor:
            return within_radius(affinity, radius=radius)

        cells = Cells(torch.from_numpy(features), pair)
    cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
    return SeenImage(class_ids=list(row["class_ids"]), cam=cam, truth=None, cells=cells, colours=colours)


def score_stored(walk: WalkScores, places: Sequence[Place]) -> NDArray[np.float64]:
    """Separations (2, N, S) of features and colours, of stored images in shards.

    Raises:
        ShardError: as for `RowReader.read`.
    """
    names = [name for name in CELLS.names if name != "image_id"]
    rows = RowReader().read_many(places, columns=names)
    scores = []
    for place in places:
        row = rows[place]
        if isinstance(row, Exception):
            raise row
        scores.append(walk.score(stored_image(row)))
    return np.array([[score[name] for score in scores] for name in SEPARATIONS], np.float64)
