"""Fully connected CRF, which sharpens scores along the image's colour edges.

    E(x) = sum_i -log(max(p_i(x_i), 1e-5)) + sum_{i<j} [x_i != x_j] ( compat_gaussian * exp(-|s_i - s_j|^2 / 2
    sxy_gaussian^2)
           + compat_bilateral * exp(-|s_i - s_j|^2 / 2 sxy_bilateral^2 - |I_i - I_j|^2 / 2 srgb^2) )

with positions s in pixels and colours I in 0..255, minimised by `num_iters` rounds of mean field.

Conventions. Scores need not sum to 1 over the labels; the result does.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", 2011,
https://arxiv.org/abs/1210.5644; defaults as AffinityNet's released code, psa.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8

NUM_ITERS = 10
SXY_GAUSSIAN = 3
COMPAT_GAUSSIAN = 3
SXY_BILATERAL = 80
SRGB = 13
COMPAT_BILATERAL = 10
"""These are AffinityNet's released code's (psa)."""

MIN_SCORE = 1e-5
"""Scores below count as this."""


def dense_crf_many(
    image: UInt8[np.ndarray, "H W 3"],
    scores: Sequence[Float[np.ndarray, "_L _H _W"]],
    *,
    num_iters: int = NUM_ITERS,
    sxy_gaussian: float | int = SXY_GAUSSIAN,
    compat_gaussian: float | int = COMPAT_GAUSSIAN,
    sxy_bilateral: float | int = SXY_BILATERAL,
    srgb: float | int = SRGB,
    compat_bilateral: float | int = COMPAT_BILATERAL,
) -> list[Float32[np.ndarray, "_L H W"]]:
    """Refines several score stacks of one image, and builds the pairwise terms only once.

    Args:
        image: RGB.
        scores: stacks of the same shape, for example one for each alpha: non-negative scores of L labels; below 1e-5
            they count as 1e-5.
        num_iters: rounds of mean field.
        sxy_gaussian: reach in pixels of the smoothness term.
        compat_gaussian: weight of the smoothness term.
        sxy_bilateral: reach in pixels of the appearance term.
        srgb: reach in colour of the appearance term; smaller respects weaker edges.
        compat_bilateral: weight of the appearance term.

    Returns:
        For each stack, probabilities that sum to 1 over the labels; ones if there is only one label.

    Raises:
        ValueError: scores and image differ in size, or the stacks in shape; there is no label, or scores aren't finite.
    """
    if not scores:
        return []
    height, width, _ = image.shape
    num_labels = len(scores[0])
    for stack in scores:
        check_stack(stack.shape, num_labels=num_labels, size=(height, width))
        if not np.isfinite(stack).all():
            raise ValueError("expected finite scores, got infinity or NaN")
    if num_labels == 1:
        return [np.ones(stack.shape, np.float32) for stack in scores]
    from pydensecrf.densecrf import DenseCRF2D  # only the dense CRF needs it

    crf = DenseCRF2D(width, height, num_labels)
    crf.addPairwiseGaussian(sxy=sxy_gaussian, compat=compat_gaussian)
    crf.addPairwiseBilateral(sxy=sxy_bilateral, srgb=srgb, rgbim=np.ascontiguousarray(image), compat=compat_bilateral)
    refined = []
    for stack in scores:
        unary = -np.log(np.clip(stack, MIN_SCORE, None)).reshape(num_labels, -1)
        crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
        refined.append(np.array(crf.inference(num_iters), np.float32).reshape(num_labels, height, width))
    return refined


def check_stack(shape: Sequence[int], *, num_labels: int, size: tuple[int, int]) -> None:
    """Makes sure that a stack of scores has the shape that it needs.

    Args:
        shape: of the stack.
        num_labels: of all stacks.
        size: (H, W) of the image.

    Raises:
        ValueError: it has another one, or no label or pixel.
    """
    if tuple(shape) != (num_labels, *size) or 0 in shape:
        raise ValueError(
            f"scores have shape {tuple(shape)}; this image needs ({num_labels}, {size[0]}, {size[1]}), "
            "at least one label and one pixel, and the same number of labels in every stack"
        )
