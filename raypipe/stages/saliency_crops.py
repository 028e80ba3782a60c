"""Training crops with their saliency."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.data.saliency_maps import decode_saliency
from raypipe.data.transforms import ResizedCrop
from raypipe.schema import PREDICTED_URI
from raypipe.stages.base import Row
from raypipe.stages.crops import Crop, LoadClassifierCrops, fetched


@dataclass(kw_only=True)
class LoadSaliencyCrops(LoadClassifierCrops):
    """Target: (C,) multi-hot labels, then the saliency (crop_size, crop_size), which goes with the image.

    Outside the image the saliency is 0.
    """

    maps: Artifact | None
    """Folder of the maps that were predicted, if any were missing."""

    reads = (*LoadClassifierCrops.reads, "saliency_uri", PREDICTED_URI)

    def files(self, row: Row) -> Iterator[str]:
        """The saliency map, too."""
        yield from super().files(row)
        if uri := _saliency_uri(row):
            yield uri

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop and mirror.

        Raises:
            ValueError: there is no saliency map, or it isn't the image's.
            OSError: it can't be fetched.
        """
        uri = _saliency_uri(row)
        if not uri:
            raise ValueError("saliency_uri is empty; give the saliency map's path or URI")
        size = (pixels.shape[0], pixels.shape[1])
        saliency = decode_saliency(
            fetched(row, uri), size=size, image=lambda: fetched(row, row["image_uri"]), max_side=self.max_side
        )
        placed = ResizedCrop.draw(size, rng, crop=self.crop_size, long_side=self.long_side)
        target = np.concatenate([self.multi_hot(row["labels"]), placed.lay_map(saliency, outside=0).reshape(-1)])
        return Crop(placed.lay_image(pixels, fill=self.fill), placed.inside, target)


def _saliency_uri(row: Row) -> str | None:
    uri: str | None = row["saliency_uri"] or row[PREDICTED_URI]
    return uri
