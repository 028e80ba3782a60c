r"""The walk that suits an image: background and number of steps by what its masks part, without truth.

    (alpha*, t*) = argmax objective(mask of T^t [M_bg(alpha), M]),  alpha in {a, a/2, a/4}, t in {2s, s, s/2, ..., 1, 0}

One setting (a, s) for a whole dataset floods the images whose maps are weak or wide: a small alpha leaves them more
background, and a short walk stops before a class has run over its object's edges. Other images bear a longer walk. The
objective (`raypipe.ops.separation`) of the image's own features and colours says which it is. A mask of one region has
0, so that a flood is never chosen while anything else is there.

Along frozen features nothing shorter than s is chosen. Maps of the same network part them before any walk, refitted
ones most, as these are a layer upon such features: the objective chose short walks that harm.

All these walks together cost about one walk of 2s steps: they are steps of the same expansion, and the backgrounds walk
along in it as further maps.

Source: measured on synthetic images and VOC's (benchmarks/sweep.md, benchmarks/small_sets.md).
"""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from raypipe.ops.separation import objective, separation

WalkChoice = Literal["given", "longer", "any"]
"""What an image chooses among: the given walk alone, walks that aren't shorter than it, or all around it."""

NUM_HALVINGS = 2
"""Of alpha. A third one gives the worst images more, but takes parts of large objects (benchmarks/sweep.md)."""


def alphas_around(alpha: float, choice: WalkChoice) -> tuple[float, ...]:
    """Returns the exponents of the background that an image chooses among, the given one first."""
    return (alpha,) if choice == "given" else tuple(alpha / 2**halving for halving in range(NUM_HALVINGS + 1))


def steps_around(num_steps: int, choice: WalkChoice) -> tuple[int, ...]:
    """Returns the numbers of steps that an image chooses among, the given one first.

    Twice as many, and with `any` half of it, and so on down to 1 and 0; 0 is left alone, which is no walk.
    """
    if choice == "given" or not num_steps:
        return (num_steps,)
    shorter = [num_steps >> halving for halving in range(1, num_steps.bit_length() + 1)]
    return (num_steps, 2 * num_steps, *(shorter if choice == "any" else ()))


def best_labels(maps: Float[Tensor, "*T maps h w"], *, num_backgrounds: int) -> UInt8[Tensor, "*T A h w"]:
    """Returns the index of the best score in each cell, 0 for background, one labelling a background.

    Args:
        maps: A backgrounds before the K >= 1 classes.
        num_backgrounds: A.

    Returns:
        Labellings as the argmax of [background, classes] gives them: the first of equals wins.
    """
    best, index = maps[..., num_backgrounds:, :, :].max(dim=-3, keepdim=True)
    return torch.where(maps[..., :num_backgrounds, :, :] >= best, 0, index + 1).to(torch.uint8)


def walk_objectives(
    maps: Float[Tensor, "T maps h w"],
    *,
    num_backgrounds: int,
    features: Float[Tensor, "D _h _w"],
    colours: Float[Tensor, "3 _h _w"],
) -> Float[Tensor, "T A"]:
    """Computes the objective of the masks of an image's walks.

    Args:
        maps: walked scores after T numbers of steps: A backgrounds before the K >= 1 classes.
        num_backgrounds: A.
        features: those that the walk went along.
        colours: mean colours of the cells.

    Returns:
        Values in [0, 1]; the first of the largest is the walk to take. They are summed in float64 and rounded, so that
        equal masks have equal values, whatever other walks they are compared with.
    """
    labels = best_labels(maps, num_backgrounds=num_backgrounds).flatten(0, 1)
    num_labels = 1 + maps.shape[1] - num_backgrounds
    parted = [separation(cells.double(), labels, num_labels=num_labels) for cells in (features, colours)]
    return objective(*parted).float().reshape(len(maps), num_backgrounds)
