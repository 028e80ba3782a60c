"""Multi-scale class activation maps of the classes that an image is labelled with (AffinityNet §3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.config import Cams
from raypipe.data.arrays import encode_cam
from raypipe.networks.precision import autocasting
from raypipe.ops.cam import Pass, merge_cams, normalize_cams
from raypipe.ops.refit import softmax_maps
from raypipe.schema import BACKGROUND, GRID_STRIDE, SEEDS, columns
from raypipe.stages.base import Row
from raypipe.stages.labelled_images import LabelledImage, OnLabelledImages
from raypipe.stages.passes import run_passes


@dataclass(kw_only=True)
class ComputeCams(OnLabelledImages):
    """CAMs (K, cam_height, cam_width) in [0, 1] of the K labelled classes, as float16 bytes.

    Every scale is one pass of the image and its mirror image. Without `pixels_per_pass` a pass never holds another
    image, so that a map depends on nothing but its image and the checkpoint. A checkpoint that was refitted gives the
    maps of `raypipe.ops.refit`.
    """

    cams: Cams

    writes = columns(SEEDS, "cam", "cam_height", "cam_width")

    @torch.inference_mode()
    def compute(self, prepared: Sequence[LabelledImage]) -> list[Row]:
        """Merges each image's passes and normalises its maps."""
        # All are merged before the first is waited for.
        merged = [self.finish(maps) for maps in self.activations(prepared)]
        return [encode_maps(maps.cpu().numpy()) for maps in merged]

    @torch.inference_mode()
    def activations(self, prepared: Sequence[LabelledImage]) -> list[Tensor]:
        """Runs the passes, but for images without labels, and merges each image's, for `finish`."""
        refit = self.network.refit is not None
        labelled = [image for image in prepared if image.class_ids]
        passes = run_passes(
            autocasting(self.network.refit_scores if refit else self.network.cam, self.device, self.precision),
            [image.pixels for image in labelled],
            preprocessing=self.network.preprocessing,
            device=self.device,
            scales=self.cams.scales,
            mirror=True,
            pixels_per_pass=self.pixels_per_pass,
            # All classes' maps of many images are gigabytes.
            channels=[
                [BACKGROUND, *image.class_ids] if refit else [class_id - 1 for class_id in image.class_ids]
                for image in labelled
            ],
        )
        of_labelled = iter(passes)
        return [self._merge(image, next(of_labelled) if image.class_ids else []) for image in prepared]

    def finish(self, merged: Tensor) -> Tensor:
        """Makes maps in [0, 1] of one image's merged activations."""
        if self.network.refit is None or not len(merged):
            return normalize_cams(merged)
        return softmax_maps(merged / (2 * len(self.cams.scales)))

    def _merge(self, image: LabelledImage, passes: Sequence[Pass]) -> Tensor:
        size, out_stride = (image.pixels.shape[0], image.pixels.shape[1]), self.cams.out_stride
        if not image.class_ids:
            return torch.zeros(0, *(-(-side // out_stride) for side in size))
        return merge_cams(passes, image_size=size, stride=GRID_STRIDE, out_stride=out_stride)


def encode_maps(cam: NDArray[np.float32]) -> Row:
    """Returns the columns of maps (K, h, w).

    Raises:
        ValueError: they aren't finite.
    """
    if not np.isfinite(cam).all():
        raise ValueError("the class activation maps hold NaN or infinity: look at the classifier's precision")
    return {"cam": encode_cam(cam), "cam_height": cam.shape[1], "cam_width": cam.shape[2]}
