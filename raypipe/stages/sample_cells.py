"""Draws cells that class activation maps are sure of, with their features: what `raypipe.ops.refit` learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe.networks import network_input
from raypipe.networks.precision import autocasting
from raypipe.ops.cam import normalize_cams
from raypipe.ops.refit import EMPTY, LAM, SURE, TARGET, sure_cells
from raypipe.schema import IGNORE
from raypipe.stages.base import Row
from raypipe.stages.batching import in_passes
from raypipe.stages.labelled_images import LabelledImage, OnLabelledImages

CELLS = pa.schema([pa.field("cell_labels", pa.binary()), pa.field("cell_features", pa.binary())])
"""Class ids (N,) in uint8, 0 for background, and features (N, D) in float16."""


@dataclass(frozen=True, kw_only=True)
class RefitSettings:
    """All that a refit depends on beside its classifier and its images; the checkpoint's config holds them.

    The stage has all of them, so that cells and what is learned from them share the digest of one plan.
    """

    sure: float = SURE
    empty: float = EMPTY
    cells_per_label: int = 16
    """Of an image, of each class and of its background. Ten were as good as 150 (benchmarks/refit.md)."""
    max_images: int = 2000
    """Whose cells are drawn, rare classes first: their features are some hundred megabytes in the driver."""
    lam: float = LAM
    target: float = TARGET


@dataclass(kw_only=True)
class SampleCells(OnLabelledImages):
    """Labels and features of some cells of each label, evenly spread over those that the maps are sure of.

    One pass of the image as it is gives both; features are those of the last map, each cell's of length 1. Maps of more
    scales taught little more (benchmarks/refit.md).
    """

    settings: RefitSettings

    writes = CELLS

    @torch.inference_mode()
    def compute(self, prepared: Sequence[LabelledImage]) -> list[Row]:
        """Passes the images, then draws their cells."""
        preprocessing = self.network.preprocessing
        inputs = [network_input(one.pixels, preprocessing=preprocessing, device=self.device)[0] for one in prepared]
        network = autocasting(self.network.maps_and_features, self.device, self.precision)
        passed = in_passes(network, inputs, pixels_per_pass=self.pixels_per_pass)
        return [self._draw(one, maps[0].cpu()) for one, maps in zip(prepared, passed, strict=True)]

    def _draw(self, image: LabelledImage, passed: torch.Tensor) -> Row:
        maps, features = passed[: self.network.num_classes], passed[self.network.num_classes :]
        wanted = maps[[class_id - 1 for class_id in image.class_ids]]
        sure, empty = self.settings.sure, self.settings.empty
        labels = sure_cells(normalize_cams(wanted), image.class_ids, sure=sure, empty=empty).reshape(-1)
        cells = spread_cells(labels, number=self.settings.cells_per_label)
        drawn = features.flatten(1)[:, cells].T.numpy().astype("<f2")
        return {"cell_labels": labels[cells].tobytes(), "cell_features": drawn.tobytes()}


def spread_cells(labels: NDArray[np.uint8], *, number: int) -> NDArray[np.int64]:
    """Returns the indices of up to `number` cells of each label but 255, evenly spread, label by label."""
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(labels[labels != IGNORE]):
        (cells,) = np.nonzero(labels == label)
        evenly = np.linspace(0, len(cells) - 1, min(number, len(cells))).round().astype(np.int64)
        chosen.append(cells[evenly])
    return np.concatenate(chosen)
