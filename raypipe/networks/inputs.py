"""Makes a network's input of an image of any size."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypipe.networks.cuda import to_device
from raypipe.networks.preprocessing import Preprocessing
from raypipe.schema import GRID_STRIDE


def network_input(
    pixels: NDArray[np.uint8], *, preprocessing: Preprocessing, device: torch.device, scale: float = 1.0
) -> tuple[Tensor, tuple[int, int]]:
    """Return the input for an image: normalised, resized, and zero padded at the right and bottom to multiples of 8.

    Args:
        pixels: (H, W, 3) RGB.
        preprocessing: the network's preprocessing.
        device: device of the result.
        scale: factor of both sides.

    Returns:
        (1, 3, H', W') float32, and the scaled size without the padding, (round(H scale), round(W scale)).
    """
    image = to_device(torch.from_numpy(pixels), device).permute(2, 0, 1)[None]
    x = preprocessing.normalize(image)
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    if scale != 1.0:
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    x = F.pad(x, (0, -width % GRID_STRIDE, 0, -height % GRID_STRIDE))
    return x.contiguous(memory_format=torch.channels_last), (height, width)
