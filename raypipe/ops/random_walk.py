r"""Random walk, which spreads class activation maps to cells that look alike.

    T = D^-1 W^beta,   D_ii = sum_j W_ij^beta,   W_ii = 1,   refined = T^t cam

Conventions. Rows of T sum to 1, so a step replaces each cell by a weighted average of its neighbours: a constant map
stays as it is, values stay between the map's minimum and maximum, and the map's total is not kept. W is stored as in
`raypipe.ops.affinity`: every pair once, at the cell from which its offset starts; entries that point outside the grid
are ignored.

Method. T is similar to the symmetric S = D^-1/2 W^beta D^-1/2, whose eigenvalues lie in [-1, 1]. There x^t has the
Chebyshev expansion

    x^t = sum_k c_k T_k(x),   c_k = 2^(1-t) binom(t, (t-k)/2) for k of t's parity (half of that at k = 0),   c_k >= 0,
    sum_k c_k = 1

whose weights fall like exp(-k^2 / 2t): about sqrt(2 t ln(2/eps)) products with the sparse S replace t of them (at most
t: there the expansion is exact), and the vectors T_k(S) v serve every t at once. N x N matrices are never formed: S has
2 * num_offsets + 1 diagonals.

Error. Let q be the kept terms divided by their sum and tau the sum of the dropped c_k. x^t - q(x) = tau * (A(x) - B(x))
with A and B weighted means of Chebyshev polynomials, each in [-1, 1], so the operator T^t - q(T) has norm at most 2 tau
in the norm |m|_D = sqrt(sum_i D_i m_i^2). With sqrt(min D) |e|_max <= |e|_D and |m|_D <= sqrt(sum D) |m|_max,

    |error|_max <= 2 tau sqrt(sum_i D_i / min_i D_i) |m|_max <= 2 tau sqrt((2 num_offsets + 1) N) |m|_max

for 1 <= D_i <= 2 num_offsets + 1, which holds since 0 <= W <= 1 and W_ii = 1. The degree is the smallest at which the
last bound is within `tol`: it depends on t, the grid's size and `tol` alone, never on values, so nothing waits for a
device and each t of a sweep equals its single run bit by bit. Results are finally clamped to each map's range, which
holds the exact result and so brings every value nearer to it.

All steps are computed in float64, whatever the maps' dtype: an error of relative size u in each product moves T^t by up
to t * u, and where many edges are equal float32's errors do not cancel (5e-5 was seen at t = 256, beyond the default
`tol`). In float64 they stay below about 1e-15 * t.

Devices. A CPU multiplies by diagonals, an accelerator runs one kernel a step (`raypipe.ops.stencil`) or, where Triton
can build none, multiplies by a sparse matrix. An accelerator's values can't be checked without waiting for it, so there
wrong ones make NaN, for `check_walked` to find once results are waited for anyway.

Sources: AffinityNet, https://arxiv.org/abs/1803.10464, §3.4, eq. 6-7; Sachdeva and Vishnoi, "Faster Algorithms via
Approximation Theory", 2014, §3.
"""

import logging
import math
import subprocess
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raypipe.ops.affinity import pair_offsets
from raypipe.ops.chebyshev import chebyshev_coefficients, chebyshev_vectors
from raypipe.ops.transition import block_transition, symmetric_transition

_LOGGER = logging.getLogger(__name__)

_RADII = {len(pair_offsets(radius)): radius for radius in range(1, 17)}


def propagate(
    cams: Float[Tensor, "K h w"],
    affinity: Float[Tensor, "num_offsets _h _w"],
    *,
    beta: float | int = 8.0,
    num_steps: int = 256,
    tol: float = 1e-5,
) -> Float[Tensor, "K h w"]:
    """Walks `num_steps` steps: T^t cam with T = D^-1 W^beta, without gradient.

    Args:
        cams: any maps of scores, background included where it takes part.
        affinity: W in [0, 1] as `pairwise_affinity` gives it.
        beta: exponent on W, >= 0; larger values cut weak edges. 0 is the limit from above: zero edges stay zero.
        num_steps: t >= 0; the paper's 256 suits a well trained affinity, a weak one needs fewer.
        tol: bound of the maximum absolute error, relative to the largest absolute value of `cams`. Only the rounding of
            the result to the dtype of `cams` comes on top.

    Returns:
        Maps of the dtype and on the device of `cams`.

    Raises:
        ValueError: num_offsets is that of no radius, the grids differ, beta, num_steps or tol is out of range, or
            (checked on CPU only, see `check_walked`) affinity has values outside [0, 1] or cams has values that aren't
            finite.
    """
    return propagate_at(cams, affinity, beta=beta, steps=[num_steps], tol=tol)[0]


def propagate_at(
    cams: Float[Tensor, "K h w"],
    affinity: Float[Tensor, "num_offsets _h _w"],
    *,
    beta: float | int = 8.0,
    steps: Sequence[int],
    tol: float = 1e-5,
) -> Float[Tensor, "num_steps K h w"]:
    """`propagate` at several numbers of steps from one expansion, at about the cost of the largest.

    Args:
        cams: as in `propagate`.
        affinity: as in `propagate`.
        beta: as in `propagate`.
        steps: values of t in any order.
        tol: as in `propagate`, for each t.

    Returns:
        One set of maps for each t, equal bit by bit to that of `propagate(..., num_steps=t)`.

    Raises:
        ValueError: as in `propagate`.
    """
    radius = _check(cams, affinity, beta, steps, tol)
    if cams.numel() == 0 or not steps:
        return cams.new_empty(len(steps), *cams.shape)
    if _has_stencil(cams.device):
        return _walk_by_stencil([cams], [affinity.to(cams.device)], beta=beta, steps=steps, tol=tol)[0]
    maps = cams.detach().to(torch.float64).flatten(1)
    twice_s, root_degree = symmetric_transition(affinity.detach().to(cams.device), beta=beta, radius=radius)
    max_tail = _max_tail(tol, num_offsets=len(affinity), num_cells=maps.shape[1])
    coefficients = [chebyshev_coefficients(t, max_tail=max_tail).tolist() for t in steps]
    sums = [torch.zeros_like(maps) for _ in steps]
    for k, vector in enumerate(chebyshev_vectors(twice_s, maps * root_degree, max(map(len, coefficients)))):
        for total, weights in zip(sums, coefficients, strict=True):
            if k < len(weights) and weights[k] > 0:
                total.add_(vector, alpha=weights[k])
    low, high = maps.amin(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True)
    walked = cams.new_empty(len(steps), *cams.shape)
    for result, total, t in zip(walked, sums, steps, strict=True):
        # Step 0 is the identity; multiplying and dividing by the same factor would miss it by rounding.
        result.copy_((maps if t == 0 else (total / root_degree).clamp_(low, high)).reshape(cams.shape))
    return walked


def propagate_batch(
    cams: Sequence[Float[Tensor, "_K _h _w"]],
    affinities: Sequence[Float[Tensor, "num_offsets _h _w"]],
    *,
    beta: float | int = 8.0,
    steps: Sequence[int] = (256,),
    tol: float = 1e-5,
) -> list[Float[Tensor, "num_steps _K _h _w"]]:
    """Walks several images of any sizes at once, since a single one would leave an accelerator idle.

    On an accelerator all images take as many kernels as one: of a stencil, or of one matrix whose blocks they are.
    Each image has the degree of its own size, so its result doesn't depend on the other images. A CPU's caches hold one
    image, so there the images are walked one by one.

    Args:
        cams: as in `propagate`, for each image; the numbers of maps may differ.
        affinities: as in `propagate`, for each image, all of one radius and on one device.
        beta: as in `propagate`.
        steps: values of t, those of every image, in any order.
        tol: as in `propagate`, for each t.

    Returns:
        The result of `propagate_at` for each image.

    Raises:
        ValueError: as in `propagate`, or the numbers of cams and affinities differ, or the numbers of offsets do.
    """
    if len(cams) != len(affinities):
        raise ValueError(f"expected cams and affinities of the same images, got {len(cams)} and {len(affinities)}")
    if len(counts := {len(affinity) for affinity in affinities}) > 1:
        raise ValueError(f"expected affinities of one radius in a batch, got {sorted(counts)} offsets")
    if all(affinity.device.type == "cpu" for affinity in affinities):
        pairs = zip(cams, affinities, strict=True)
        return [propagate_at(cam, affinity, beta=beta, steps=steps, tol=tol) for cam, affinity in pairs]
    if _has_stencil(affinities[0].device):
        return _propagate_stencil(cams, affinities, beta=beta, steps=steps, tol=tol)
    return _propagate_blocks(cams, affinities, beta=beta, steps=steps, tol=tol)


def check_walked(walked: Sequence[Tensor]) -> None:
    """Raises ValueError if walked maps aren't finite, which says that what they were computed from was wrong.

    On a CPU the walk itself raises; elsewhere this does, and waits for the device once.

    Args:
        walked: maps of any shapes on one device, or what isn't finite where they aren't, such as their sums.
    """
    if walked and not torch.stack([maps.isfinite().all() for maps in walked]).all():
        raise ValueError(
            "the walk gave NaN or infinity: its maps aren't finite, or affinities aren't or lie outside [0, 1]; "
            "look at the networks' weights and their precision"
        )


@lru_cache(maxsize=16)
def _has_stencil(device: torch.device) -> bool:
    """Returns whether Triton can build the kernels for a device, which takes compilers for it and for C."""
    if device.type == "cpu":
        return False
    one_cell = torch.ones(1, 1, 1, device=device)
    try:
        _walk_by_stencil([one_cell], [one_cell.expand(34, 1, 1)], beta=1, steps=[1], tol=0.1)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        _LOGGER.warning("the walk on %s multiplies by sparse matrices, as Triton builds no kernel: %s", device, error)
        return False
    return True


def _walk_by_stencil(
    cams: Sequence[Tensor], affinities: Sequence[Tensor], *, beta: float | int, steps: Sequence[int], tol: float
) -> list[Tensor]:
    """Computes maps (num_steps, K, h, w) of each image by the kernels of `raypipe.ops.stencil`."""
    from raypipe.ops import stencil  # imports Triton, which not every installation has

    max_tails = [_max_tail(tol, num_offsets=len(a), num_cells=a.shape[1] * a.shape[2]) for a in affinities]
    coefficients = [[chebyshev_coefficients(t, max_tail=max_tail) for t in steps] for max_tail in max_tails]
    with torch.no_grad():
        return stencil.walk(cams, affinities, beta=beta, coefficients=coefficients, radius=_RADII[len(affinities[0])])


def _propagate_stencil(
    cams: Sequence[Tensor], affinities: Sequence[Tensor], *, beta: float | int, steps: Sequence[int], tol: float
) -> list[Tensor]:
    """Computes `propagate_batch` by the kernels of `raypipe.ops.stencil`."""
    for cam, affinity in zip(cams, affinities, strict=True):
        _check(cam, affinity, beta, steps, tol)
    filled = [(cam.to(edges.device), edges) for cam, edges in zip(cams, affinities, strict=True) if cam.numel()]
    walked = iter(_walk_by_stencil(*zip(*filled, strict=True), beta=beta, steps=steps, tol=tol) if filled else [])
    return [next(walked).to(cam.device) if cam.numel() else cam.new_empty(len(steps), *cam.shape) for cam in cams]


def _propagate_blocks(
    cams: Sequence[Tensor], affinities: Sequence[Tensor], *, beta: float | int, steps: Sequence[int], tol: float
) -> list[Tensor]:
    """Computes `propagate_batch` by one block-diagonal matrix."""
    for cam, affinity in zip(cams, affinities, strict=True):
        radius = _check(cam, affinity, beta, steps, tol)
    walked = [cam.detach().expand(len(steps), *cam.shape).clone() for cam in cams]
    filled = [index for index, cam in enumerate(cams) if cam.numel()]
    if not any(steps) or not filled:
        return walked
    device = affinities[0].device
    sizes = [cams[index][0].numel() for index in filled]
    maps = torch.zeros(max(len(cams[index]) for index in filled), sum(sizes), dtype=torch.float64, device=device)
    blocks = [
        block[: len(cams[index])].copy_(cams[index].detach().flatten(1))
        for index, block in zip(filled, torch.split(maps, sizes, dim=1), strict=True)
    ]
    twice_s, root_degree = block_transition([affinities[index].detach() for index in filled], beta=beta, radius=radius)
    max_tails = [_max_tail(tol, num_offsets=len(affinities[0]), num_cells=size) for size in sizes]
    coefficients = [[chebyshev_coefficients(t, max_tail=max_tail) for max_tail in max_tails] for t in steps]
    num_terms = max(len(of_block) for of_step in coefficients for of_block in of_step)
    padded = [[np.pad(c, (0, num_terms - len(c))) for c in of_step] for of_step in coefficients]
    weights = torch.from_numpy(np.array(padded)).to(device)
    block_of_cell = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)).to(device)
    totals = torch.zeros(len(steps), *maps.shape, dtype=maps.dtype, device=device)
    for k, vector in enumerate(chebyshev_vectors(twice_s, maps * root_degree, num_terms)):
        for t, total, of_step in zip(steps, totals, weights, strict=True):
            if k % 2 == t % 2:
                total.addcmul_(vector, of_step[:, k][block_of_cell])
    totals /= root_degree
    for index, block, result in zip(filled, blocks, torch.split(totals, sizes, dim=2), strict=True):
        low, high = block.amin(dim=1, keepdim=True), block.amax(dim=1, keepdim=True)
        for t, one, of_step in zip(steps, walked[index], result, strict=True):
            if t:  # step 0 is the identity, as in `propagate_at`
                one.copy_(of_step[: len(block)].clamp(low, high).reshape(cams[index].shape))
    return walked


def _check(cams: Tensor, affinity: Tensor, beta: float | int, steps: Sequence[int], tol: float) -> int:
    """Returns the radius; raises ValueError for arguments that don't define a walk."""
    if len(affinity) not in _RADII:
        valid = ", ".join(f"{count} (radius {radius})" for count, radius in _RADII.items())
        raise ValueError(f"affinity has {len(affinity)} offsets, which is the number of no radius; valid: {valid}")
    if cams.shape[1:] != affinity.shape[1:]:
        raise ValueError(
            f"cams lie on a grid of {tuple(cams.shape[1:])} cells and affinity on {tuple(affinity.shape[1:])}; "
            "pool the cams to the feature grid"
        )
    if not 0 <= beta < math.inf:
        raise ValueError(f"expected a finite beta of at least 0 (the paper's is 8), got {beta}")
    if any(t != int(t) or t < 0 for t in steps):
        raise ValueError(f"expected whole numbers of steps of at least 0, got {list(steps)}")
    if not 0 < tol < 1:
        raise ValueError(f"expected tol between 0 and 1, for example 1e-5, got {tol}")
    if cams.device.type == "cpu" and cams.numel():
        if not ((affinity >= 0) & (affinity <= 1)).all():
            raise ValueError(
                f"affinity has values from {affinity.min():.6g} to {affinity.max():.6g}; they have to lie in [0, 1]"
            )
        if not cams.isfinite().all():
            raise ValueError("expected finite cams, got infinity or NaN")
    return _RADII[len(affinity)]


def _max_tail(tol: float, *, num_offsets: int, num_cells: int) -> float:
    """Returns the sum of dropped coefficients that keeps the error within `tol`, by the bound above."""
    return tol / (2 * math.sqrt((2 * num_offsets + 1) * num_cells))
