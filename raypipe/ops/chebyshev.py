"""The Chebyshev expansion of x^t, by which `raypipe.ops.random_walk` takes t steps in about sqrt(t) products.

Source: Sachdeva and Vishnoi, "Faster Algorithms via Approximation Theory", 2014, §3.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from torch import Tensor

from raypipe.ops.transition import Product


def chebyshev_coefficients(num_steps: int, *, max_tail: float) -> Float[np.ndarray, " num_terms"]:
    """Computes the weights of the shortest Chebyshev expansion of x^t whose dropped terms sum to at most `max_tail`.

    The kept weights are divided by their sum, so that q(1) = 1: constant maps stay fixed. Neighbouring weights have the
    ratio c_(k+2) / c_k = (t - k) / (t + k + 2); they are computed from an arbitrary start by this ratio and
    divided by their sum, which must be 1. So no t needs a large binomial, and nothing cancels.

    Args:
        num_steps: t >= 0.
        max_tail: in (0, 1); below 1e-30 it is taken as 1e-30.

    Returns:
        c_0 .. c_d, zero where k and t differ in parity. The expansion is exact where d = t.

    Source: Sachdeva and Vishnoi, 2014, §3.1.
    """
    # Hoeffding: the sum of c_k over k >= m is at most 2 exp(-m^2 / 2t), so nothing beyond this matters.
    last = min(num_steps, math.ceil(math.sqrt(2 * num_steps * math.log(2 / 1e-30))))
    k = np.arange(num_steps % 2, last + 1, 2)
    weights = np.cumprod(np.concatenate([[1.0], (num_steps - k[:-1]) / (num_steps + k[:-1] + 2)]))
    if k[0] == 0:
        weights[0] = 0.5
    weights /= weights.sum()
    tails = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    num_kept = int(np.argmax(tails <= max_tail)) + 1
    coefficients = np.zeros(k[num_kept - 1] + 1)
    coefficients[k[:num_kept]] = weights[:num_kept] / weights[:num_kept].sum()
    return coefficients


def chebyshev_vectors(twice_s: Product, start: Tensor, num_terms: int) -> Iterator[Tensor]:
    """Yields T_k(S) v for k = 0 .. num_terms - 1, by T_(k+1) = 2 S T_k - T_(k-1)."""
    previous, current = start, start
    for k in range(num_terms):
        if k == 1:
            current = twice_s(start).mul_(0.5)
        elif k > 1:
            previous, current = current, twice_s(current).sub_(previous)
        yield current
