"""Images through a network at several scales, each with its mirror image."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.networks import Preprocessing, network_input
from raypipe.networks.cuda import to_device
from raypipe.ops.cam import Pass
from raypipe.stages.batching import in_passes


def run_passes(
    network: Callable[[Tensor], Tensor],
    images: Sequence[NDArray[np.uint8]],
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    scales: Sequence[float],
    mirror: bool,
    pixels_per_pass: int | None,
    channels: Sequence[Sequence[int]] | None = None,
) -> list[list[Pass]]:
    """Returns each image's passes, for `ops.cam.merge_cams`: at every scale one and, with `mirror`, a mirrored one.

    Args:
        network: inputs (B, 3, H, W) to maps (B, C, h, w).
        images: (H, W, 3) RGB each.
        preprocessing: the network's.
        device: where it lives.
        scales: factors of both sides.
        mirror: adds mirror images.
        pixels_per_pass: see `batching.in_passes`.
        channels: of the maps, those of each image that are kept; None keeps all C.
    """

    def both(x: Tensor) -> Tensor:
        maps = network(torch.cat([x, x.flip(-1)]) if mirror else x).float()
        return maps.reshape(-1, len(x), *maps.shape[1:]).transpose(0, 1)

    # Indices that were lists would be copied to the device with each pass, which would be waited for.
    wanted = None if channels is None else [to_device(torch.tensor(kept), device) for kept in channels]
    passes: list[list[Pass]] = [[] for _ in images]
    for scale in scales:
        inputs = [network_input(pixels, preprocessing=preprocessing, device=device, scale=scale) for pixels in images]
        outputs = in_passes(both, [x for x, _ in inputs], pixels_per_pass=pixels_per_pass)
        for index, ((_, size), maps) in enumerate(zip(inputs, outputs, strict=True)):
            kept = maps[0] if wanted is None else maps[0].index_select(1, wanted[index])
            passes[index] += [Pass(one, size, mirrored) for one, mirrored in zip(kept, (False, True), strict=False)]
    return passes
