"""Weights of a small CSNet, random: two resolutions in its stages, one pyramid without its first dilation."""

import torch
from torch import Tensor

from raypipe.networks.csnet import CSNet

WIDTHS = [[(3, 2)], [(3, 3)], [(4, 2), (4,)], [(3, 3), (5,)], [(4, 4), (6,)]]
"""Channels of each resolution, a stage and block."""


def csnet_state() -> dict[str, Tensor]:
    """The state dict, by its published names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, ins: int, outs: tuple[int, ...], kernel: int = 1) -> None:
        shapes[f"{name}.conv.weight"] = (sum(outs), ins, kernel, kernel)
        shapes.update({f"{name}.bns.{index}.weight": (width,) for index, width in enumerate(outs)})

    ins = 3
    for stage, blocks in enumerate(WIDTHS):
        for block, outs in enumerate(blocks):
            convolution(f"stage{stage}.{block}.conv1x1", ins, outs, kernel=3 if stage != 1 and block == 0 else 1)
            ins = sum(outs)
    convolution("oct_fuse.fuse", 4 + 5 + 6, (3, 4, 2))
    for index, (width, parts) in enumerate([(3, {0: 2, 4: 1}), (4, {1: 1, 2: 3}), (2, {3: 2})]):
        for dilation, out in parts.items():
            shapes[f"oct_fuse.ms.convs.{index}.msconv.{dilation}.weight"] = (out, width, 3, 3)
    convolution("oct_fuse.fuse1x1", 3 + 4 + 2, (5,))
    torch.manual_seed(0)
    network = CSNet({name: torch.zeros(shape) for name, shape in shapes.items()})
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
