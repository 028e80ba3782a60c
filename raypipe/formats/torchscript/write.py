"""A segmentation network for use without raypipe: one TorchScript file from 8-bit images to probabilities."""

import io
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from raypipe.networks import Segmenter
from raypipe.schema import GRID_STRIDE

_jit: Any = torch.jit  # untyped

METADATA = "raypipe.json"
"""Name of the file within the file that says what the channels are."""


class PackedSegmenter(nn.Module):
    """Preprocessing, padding, network, softmax and upsampling of a segmentation network."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B L H W"]:
        """Return the probabilities of background and classes of RGB images of any size, all of one size."""
        height, width = images.shape[-2:]
        x = self.network.preprocessing.normalize(images)
        x = F.pad(x, (0, -width % GRID_STRIDE, 0, -height % GRID_STRIDE))
        probabilities = self.network(x).softmax(dim=1)
        # By a factor, not to a size: tracing would keep the example's.
        upsampled = F.interpolate(probabilities, scale_factor=float(GRID_STRIDE), mode="bilinear")
        return upsampled[..., :height, :width]


def to_torchscript(network: Segmenter, *, classes: Sequence[str], digest: str) -> bytes:
    """The file: `torch.jit.load` reads it, in Python and C++, for images of any size.

    Args:
        network: in eval mode, on the CPU.
        classes: names in class-id order, without background.
        digest: of the checkpoint.
    """
    preprocessing = network.preprocessing.to_dict()
    metadata = {
        "classes": ["background", *classes],
        "input": "uint8 (B, 3, H, W), RGB, 0..255; preprocessing is inside",
        "output": "float32 (B, classes, H, W), probabilities",
        "preprocessing": preprocessing,
        "checkpoint": digest,
    }
    example = torch.zeros(1, 3, 12 * GRID_STRIDE + 1, 9 * GRID_STRIDE + 3, dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a successor, and that sizes become numbers: tests try others
        traced = _jit.trace(PackedSegmenter(network).eval(), example, check_trace=False)
        buffer = io.BytesIO()
        _jit.save(traced, buffer, _extra_files={METADATA: json.dumps(metadata, ensure_ascii=False)})
    return buffer.getvalue()


def largest_difference(model: bytes, network: Segmenter, images: Sequence[NDArray[np.uint8]]) -> float:
    """How far the file's probabilities are from those of the network itself, over images (H, W, 3)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        loaded = _jit.load(io.BytesIO(model), map_location="cpu")
    packed = PackedSegmenter(network).eval()
    largest = 0.0
    with torch.inference_mode():
        for pixels in images:
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            largest = max(largest, (loaded(x) - packed(x)).abs().max().item())
    return largest
