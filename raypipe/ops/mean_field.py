"""The fully connected CRF of `raypipe.ops.dense_crf` as operations of torch, which run on an accelerator.

Energy, conventions and mean field are the same, as is the approximate Gaussian filter; results differ in rounding. On
one kind of device and for given inputs, runs give equal bytes. The rounds never wait for the device: what is waited for
is the check of the scores, and once for each of the two lattices.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", 2011,
https://arxiv.org/abs/1210.5644, algorithm 1.
"""

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from raypipe.ops.dense_crf import (
    COMPAT_BILATERAL,
    COMPAT_GAUSSIAN,
    MIN_SCORE,
    NUM_ITERS,
    SRGB,
    SXY_BILATERAL,
    SXY_GAUSSIAN,
    check_stack,
)
from raypipe.ops.permutohedral import build


def mean_field(
    image: UInt8[Tensor, "H W 3"],
    scores: Float[Tensor, "S L _H _W"],
    *,
    num_iters: int = NUM_ITERS,
    sxy_gaussian: float | int = SXY_GAUSSIAN,
    compat_gaussian: float | int = COMPAT_GAUSSIAN,
    sxy_bilateral: float | int = SXY_BILATERAL,
    srgb: float | int = SRGB,
    compat_bilateral: float | int = COMPAT_BILATERAL,
) -> Float32[Tensor, "S L H W"]:
    """Refines S score stacks of one image together.

    Args:
        image: RGB.
        scores: stacks on the image's device, non-negative; below 1e-5 they count as 1e-5.
        num_iters: rounds of mean field.
        sxy_gaussian: reach in pixels of the smoothness term.
        compat_gaussian: weight of the smoothness term.
        sxy_bilateral: reach in pixels of the appearance term.
        srgb: reach in colour of the appearance term; smaller respects weaker edges.
        compat_bilateral: weight of the appearance term.

    Returns:
        For each stack, probabilities that sum to 1 over the labels; ones if there is only one label.

    Raises:
        ValueError: scores and image differ in size; there is no label, or scores aren't finite; or the reaches are so
            small that the lattice has too many vertices.
    """
    height, width, _ = image.shape
    num_stacks, num_labels = scores.shape[:2]
    check_stack(tuple(scores.shape[1:]), num_labels=num_labels, size=(height, width))
    if num_stacks == 0:
        return scores.to(torch.float32)
    if not torch.isfinite(scores).all():
        raise ValueError("expected finite scores, got infinity or NaN")
    if num_labels == 1:
        return torch.ones_like(scores, dtype=torch.float32)
    # A pixel's labels lie together, so that a filter reads and writes rows.
    known = scores.permute(2, 3, 0, 1).reshape(-1, num_stacks, num_labels).clamp(min=MIN_SCORE).log().float()
    guess = known.softmax(dim=-1)
    if num_iters:
        rows, columns = torch.meshgrid(
            *(torch.arange(side, device=image.device, dtype=torch.float32) for side in (height, width)), indexing="ij"
        )
        position = torch.stack([columns.flatten(), rows.flatten()])
        colour = image.reshape(-1, 3).T.float() / srgb
        smoothness = build(position / sxy_gaussian)
        appearance = build(torch.cat([position / sxy_bilateral, colour]))
        for _ in range(num_iters):
            flat = guess.flatten(1)
            message = (
                appearance.filter(flat).mul_(compat_bilateral).add_(smoothness.filter(flat), alpha=compat_gaussian)
            )
            guess = message.view_as(known).add_(known).softmax(dim=-1)
    return guess.permute(1, 2, 0).reshape(num_stacks, num_labels, height, width)
