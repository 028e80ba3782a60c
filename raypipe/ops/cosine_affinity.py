r"""Affinity without training: the cosine of two cells' features.

    W_ij = max(0, f_i . f_j / (|f_i| |f_j|))        for all pairs with 0 < |i - j| < radius

Features of a network that was trained for something else are alike where things are alike. The walk's beta, the
exponent on W, cuts what is only a little alike.

Conventions are those of `raypipe.ops.affinity`: each pair once, at the cell from which its offset starts.

Source: Stojnić et al., "LPOSS: Label Propagation Over Patches and Pixels for Open-vocabulary Semantic Segmentation",
CVPR 2025, https://arxiv.org/abs/2503.19777, which propagates along the similarity of frozen features of patches, in
the whole image. Here cells within the radius are paired, as in AffinityNet's walk.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.ops.affinity import grid_pairs, inside_grid, pair_offsets


def cosine_affinity(
    features: Float[Tensor, "*batch C h w"], *, radius: int = 5
) -> Float[Tensor, "*batch num_offsets h w"]:
    """Computes the cosine of every pair of cells closer than `radius`, 0 where it is negative.

    Args:
        features: f, any number of leading batch dimensions. Half precision is computed and returned in float32, since
            W^beta magnifies rounding. A cell whose features are all 0 is like no other.
        radius: the paper's gamma in cells.

    Returns:
        Values in [0, 1], 0 outside the grid, pairs in the order of `pair_offsets(radius)`.

    Raises:
        ValueError: the radius is below 1, or there are no channels.
    """
    *batch, channels, height, width = features.shape
    if channels == 0:
        raise ValueError("expected features of at least one channel, got none")
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    cells = F.normalize(features.reshape(*batch, channels, height * width), dim=-2)
    affinity = cells.new_zeros(*batch, len(pair_offsets(radius)), height * width)
    for k, shift, _ in grid_pairs(height, width, radius):
        affinity[..., k, : height * width - shift] = (cells[..., shift:] * cells[..., : height * width - shift]).sum(-2)
    affinity = affinity * inside_grid(height, width, radius, features.device)
    return affinity.clamp(0, 1).reshape(*batch, -1, height, width)
