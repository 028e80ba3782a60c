"""Images through a network at several scales, each with its mirror image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.networks import Preprocessing, network_input
from raypipe.ops.cam import merge_cams
from raypipe.stages.batching import in_passes


@dataclass
class Passes:
    """Maps of one image, one grid a pass."""

    image_size: tuple[int, int]
    maps: list[Tensor] = field(default_factory=list)
    """(C, h, w) each."""
    mirrored: list[bool] = field(default_factory=list)
    scaled_sizes: list[tuple[int, int]] = field(default_factory=list)

    def merged(self, channels: Sequence[int] | None = None, *, stride: int, out_stride: int) -> Tensor:
        """The sum of all passes, as `ops.cam.merge_cams`.

        Args:
            channels: those that are wanted; None takes all.
            stride: pixels a cell of a pass.
            out_stride: pixels of the image a cell of the result.
        """
        return merge_cams(
            [maps if channels is None else maps[list(channels)] for maps in self.maps],
            mirrored=self.mirrored,
            scaled_sizes=self.scaled_sizes,
            image_size=self.image_size,
            stride=stride,
            out_stride=out_stride,
        )


def run_passes(
    network: Callable[[Tensor], Tensor],
    images: Sequence[NDArray[np.uint8]],
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    scales: Sequence[float],
    mirror: bool,
    pixels_per_pass: int | None,
) -> list[Passes]:
    """Every scale is one pass of an image and, with `mirror`, its mirror image.

    Args:
        network: inputs (B, 3, H, W) to maps (B, C, h, w).
        images: (H, W, 3) RGB each.
        preprocessing: the network's.
        device: where it lives.
        scales: factors of both sides.
        mirror: adds mirror images.
        pixels_per_pass: see `joint.in_passes`.
    """

    def both(x: Tensor) -> Tensor:
        maps = network(torch.cat([x, x.flip(-1)]) if mirror else x).float()
        return maps.reshape(-1, len(x), *maps.shape[1:]).transpose(0, 1)

    passes = [Passes((pixels.shape[0], pixels.shape[1])) for pixels in images]
    for scale in scales:
        inputs = [network_input(pixels, preprocessing=preprocessing, device=device, scale=scale) for pixels in images]
        outputs = in_passes(both, [x for x, _ in inputs], pixels_per_pass=pixels_per_pass)
        for image, (_, size), maps in zip(passes, inputs, outputs, strict=True):
            image.maps += maps[0]
            image.mirrored += [False, True][: len(maps[0])]
            image.scaled_sizes += [size] * len(maps[0])
    return passes
