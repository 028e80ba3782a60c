"""The segmentation network with everything around it, as one graph from 8-bit images to probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from raypipe.networks import Segmenter
from raypipe.schema import GRID_STRIDE


class PackedSegmenter(nn.Module):
    """Preprocessing, padding, network, softmax and upsampling of a segmentation network."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B L H W"]:
        """Return the probabilities of background and classes of RGB images."""
        height, width = images.shape[-2:]
        rows, columns = ((side + GRID_STRIDE - 1) // GRID_STRIDE for side in (height, width))
        x = self.network.preprocessing.normalize(images)
        x = F.pad(x, (0, columns * GRID_STRIDE - width, 0, rows * GRID_STRIDE - height))
        probabilities = self.network(x).softmax(dim=1)
        # The upsampling is by a factor, not to a size, so that a cell stays 8 pixels wide. Negative padding crops; a
        # slice would be a view, whose strides torch.export would take for a condition on the images' sizes.
        upsampled = F.interpolate(probabilities, scale_factor=float(GRID_STRIDE), mode="bilinear")
        return F.pad(upsampled, (0, width - columns * GRID_STRIDE, 0, height - rows * GRID_STRIDE))


def smallest_side(network: Segmenter) -> int:
    """Return the smallest height and width, in pixels, that the exported graph takes: the network sees two cells."""
    return network.backbone.output_stride + 1


def export_program(network: Segmenter) -> ExportedProgram:
    """Export the packed network for batches of any number of images of any size from `smallest_side` on.

    Args:
        network: in eval mode, on the CPU.
    """
    side = smallest_side(network)
    example = torch.zeros(2, 3, 12 * GRID_STRIDE + 1, 9 * GRID_STRIDE + 3, dtype=torch.uint8)
    sizes = {0: Dim("batch"), 2: Dim("height", min=side), 3: Dim("width", min=side)}
    with torch.no_grad():
        program = torch.export.export(PackedSegmenter(network).eval(), (example,), dynamic_shapes=(sizes,))
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)  # it would tell the folders of this machine
    return program


def model_metadata(network: Segmenter, *, classes: Sequence[str], digest: str) -> Mapping[str, Any]:
    """Describe the file's input, output and origin in plain values.

    Args:
        network: whose preprocessing is inside the graph.
        classes: names in class-id order, without background.
        digest: the checkpoint's.
    """
    return {
        "classes": ["background", *classes],
        "input": f"uint8 (B, 3, H, W), RGB, 0..255, sides from {smallest_side(network)}; preprocessing is inside",
        "output": "float32 (B, classes, H, W), probabilities",
        "preprocessing": network.preprocessing.to_dict(),
        "checkpoint": digest,
    }
