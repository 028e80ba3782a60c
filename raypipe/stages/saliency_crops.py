"""Training crops with their saliency."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.saliency_maps import decode_saliency
from raypipe.data.transforms import ResizedCrop
from raypipe.schema import PREDICTED_URI
from raypipe.stages.base import Row
from raypipe.stages.crops import Crop, LoadClassifierCrops


@dataclass(kw_only=True)
class LoadSaliencyCrops(LoadClassifierCrops):
    """Target: (C,) multi-hot labels, then the saliency (crop_size, crop_size), which goes with the image.

    Outside the image the saliency is 0.
    """

    maps: Artifact | None
    """Folder of the maps that were predicted, if any were missing."""

    reads = (*LoadClassifierCrops.reads, "saliency_uri", PREDICTED_URI)

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop, mirror and colours.

        Raises:
            ValueError: there is no saliency map, or it isn't the image's.
            OSError: it can't be fetched.
        """
        uri = row["saliency_uri"] or row[PREDICTED_URI]
        if not uri:
            raise ValueError("saliency_uri is empty; give the saliency map's path or URI")
        size = (pixels.shape[0], pixels.shape[1])
        saliency = decode_saliency(storage.read_bytes(uri), size=size, max_side=self.max_side)
        placed = ResizedCrop.draw(size, rng, crop=self.crop_size, long_side=self.long_side)
        crop = placed.lay_image(pixels, rng, fill=self.fill, jitter=self.jitter)
        target = placed.lay_map(saliency, outside=0)
        return crop, np.concatenate([self.multi_hot(row["labels"]), target.reshape(-1)])
