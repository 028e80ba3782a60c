"""Draws cells that class activation maps are sure of, with their features: what `raypipe.ops.refit` learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.data.arrays import decode_cam
from raypipe.networks import network_input
from raypipe.networks.cuda import to_device
from raypipe.networks.precision import autocasting
from raypipe.ops.cam import pool_to_grid
from raypipe.ops.refit import sure_cells
from raypipe.schema import GRID_STRIDE, IGNORE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_classifier

CELLS = pa.schema([pa.field("cell_labels", pa.binary()), pa.field("cell_features", pa.binary())])
"""Class ids (N,) in uint8, 0 for background, and features (N, D) in float16."""

CELLS_PER_LABEL = 16
"""Of an image, of each class and of its background. Ten were as good as 150 (benchmarks/refit.md)."""


@dataclass(frozen=True)
class SureImage:
    """An image and cells of its grid."""

    pixels: NDArray[np.uint8]
    cells: NDArray[np.int64]
    """(N,) indices into the grid, row by row."""
    labels: NDArray[np.uint8]
    """(N,) of these cells."""


@dataclass(kw_only=True)
class SampleCells(JointStage[SureImage]):
    """Labels and features of up to 16 cells of each label, evenly spread over those that the maps are sure of."""

    classifier: Artifact
    """The checkpoint, whose last map gives the features, each cell's of length 1."""
    cam_stride: int
    """Pixels a cell of the maps."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    reads = ("image", "class_ids", "cam", "cam_height", "cam_width")
    writes = CELLS

    def setup(self, device: str) -> None:
        """Loads the classifier."""
        self.network = load_classifier(self.classifier.uri, device=device, precision=self.precision)
        self.device = torch.device(device)

    def prepare(self, row: Row) -> SureImage:
        """Takes the pixels, and chooses cells."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        pooled = pool_to_grid(cam, stride=GRID_STRIDE // self.cam_stride)
        labels = sure_cells(pooled, row["class_ids"]).reshape(-1)
        cells = spread_cells(labels, number=CELLS_PER_LABEL)
        return SureImage(pixels_of(row, max_side=self.max_side), cells, labels[cells])

    @torch.inference_mode()
    def compute(self, prepared: Sequence[SureImage]) -> list[Row]:
        """Passes the images and takes their cells."""
        preprocessing = self.network.preprocessing
        inputs = [network_input(one.pixels, preprocessing=preprocessing, device=self.device)[0] for one in prepared]
        network = autocasting(self.network.unit_features, self.device, self.precision)
        maps = in_passes(network, inputs, pixels_per_pass=self.pixels_per_pass)
        taken = [
            features[0].flatten(1).index_select(1, to_device(torch.from_numpy(one.cells), self.device)).T.half()
            for features, one in zip(maps, prepared, strict=True)
        ]
        return [
            {"cell_labels": one.labels.tobytes(), "cell_features": features.cpu().numpy().astype("<f2").tobytes()}
            for one, features in zip(prepared, taken, strict=True)
        ]


def spread_cells(labels: NDArray[np.uint8], *, number: int) -> NDArray[np.int64]:
    """Returns the indices of up to `number` cells of each label but 255, evenly spread, label by label."""
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(labels[labels != IGNORE]):
        (cells,) = np.nonzero(labels == label)
        evenly = np.linspace(0, len(cells) - 1, min(number, len(cells))).round().astype(np.int64)
        chosen.append(cells[evenly])
    return np.concatenate(chosen)
