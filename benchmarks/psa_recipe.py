"""The recipe that the released codes follow: float32, one pass after another, the walk's matrix dense and squared.

It shares raypipe's networks, not its precision, layout, folding, batching and walk.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.networks import AffinityNet, AnyClassifier, network_input
from raypipe.ops.affinity import grid_pairs, pairwise_affinity
from raypipe.ops.cam import Pass, merge_cams, normalize_cams, pool_to_grid, stack_background
from raypipe.schema import GRID_STRIDE

OUT_STRIDE = 4
"""Pixels a cell of the maps."""


@torch.inference_mode()
def cams_one_by_one(
    network: AnyClassifier,
    pixels: NDArray[np.uint8],
    class_ids: Sequence[int],
    *,
    scales: Sequence[float],
    device: torch.device,
) -> Tensor:
    """Maps (K, h, w) in [0, 1] of the classes, one scale and side after the other."""
    passes = []
    for scale in scales:
        x, scaled_size = network_input(pixels, preprocessing=network.preprocessing, device=device, scale=scale)
        x = x.contiguous()
        for flip in (False, True):
            maps = network.cam(x.flip(-1) if flip else x)[0, [class_id - 1 for class_id in class_ids]]
            passes.append(Pass(maps, scaled_size, flip))
    return normalize_cams(merge_cams(passes, image_size=(pixels.shape[0], pixels.shape[1]), out_stride=OUT_STRIDE))


@torch.inference_mode()
def walk_densely(network: AffinityNet, pixels: NDArray[np.uint8], cam: Tensor, *, device: torch.device) -> Tensor:
    """Scores (1 + K, h, w) after 256 steps at alpha 16 and beta 8, by features in float32 and eight squarings."""
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=device)
    features = network(x.contiguous())[0]
    matrix = dense_transition(pairwise_affinity(features), beta=8, dtype=torch.float32)
    scores = pool_to_grid(stack_background(cam, alpha=16), stride=GRID_STRIDE // OUT_STRIDE)
    return dense_walk(scores, matrix, num_squarings=8)


def dense_transition(affinity: Tensor, *, beta: float, dtype: torch.dtype) -> Tensor:
    """T = D^-1 W^beta as an N x N matrix."""
    _, height, width = affinity.shape
    num_cells = height * width
    matrix = torch.eye(num_cells, dtype=dtype, device=affinity.device)
    for k, shift, inside in grid_pairs(height, width, 5):
        start = torch.from_numpy(np.flatnonzero(inside)).to(affinity.device)
        weights = affinity[k].flatten()[start].to(dtype) ** beta
        matrix[start, start + shift] = weights
        matrix[start + shift, start] = weights
    return matrix / matrix.sum(dim=1, keepdim=True)


def dense_walk(cams: Tensor, matrix: Tensor, *, num_squarings: int) -> Tensor:
    """T^(2^n) cam by squaring."""
    for _ in range(num_squarings):
        matrix = matrix @ matrix
    return (matrix @ cams.flatten(1).T).T.reshape(cams.shape)
