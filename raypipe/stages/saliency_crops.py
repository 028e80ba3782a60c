"""Training crops with their saliency."""

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.saliency_maps import decode_saliency
from raypipe.data.transforms import augment_with_saliency
from raypipe.stages.base import Row
from raypipe.stages.crops import LoadClassifierCrops


class LoadSaliencyCrops(LoadClassifierCrops):
    """Target: (C,) multi-hot labels, then the saliency (crop_size, crop_size), which goes with the image.

    Outside the image the saliency is 0.
    """

    reads = (*LoadClassifierCrops.reads, "saliency_uri")
    drops = (*LoadClassifierCrops.drops, "saliency_uri")

    def augment(
        self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Random size, crop, mirror and colours.

        Raises:
            ValueError: there is no saliency map, or it isn't the image's.
            OSError: it can't be fetched.
        """
        if not row["saliency_uri"]:
            raise ValueError("saliency_uri is empty; give the saliency map's path or URI")
        size = (pixels.shape[0], pixels.shape[1])
        saliency = decode_saliency(storage.read_bytes(row["saliency_uri"]), size=size, max_side=self.max_side)
        crop, saliency = augment_with_saliency(
            pixels, saliency, rng, crop=self.crop_size, long_side=self.long_side, fill=self.fill, jitter=self.jitter
        )
        return crop, np.concatenate([self.multi_hot(row["labels"]), saliency.reshape(-1)])
