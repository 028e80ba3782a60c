r"""Floods: how much of an image, and of its border, a mask gives to objects.

    covered = |{p : l_p > 0}| / |P|,   covered border = |{p in B : l_p > 0}| / |B|

with the labels l of the cells P, 0 for background, and the cells B of the first and last rows and columns. An object
seldom takes the whole frame of a photograph; a class whose walk found no edge to stop at does.

Source: Wei et al., "Geodesic Saliency Using Background Priors", 2012, §2: most of an image's border is background.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def covered_share(labels: UInt8[Tensor, "S h w"]) -> Float[Tensor, " S"]:
    """Returns the share of the cells that objects cover, of each of S labellings; in [0, 1]."""
    return (labels > 0).float().mean(dim=(1, 2))


def covered_border(labels: UInt8[Tensor, "S h w"]) -> Float[Tensor, " S"]:
    """Returns the share of the border's cells that objects cover, of each of S labellings; in [0, 1]."""
    border = torch.ones(labels.shape[1:], device=labels.device)
    border[1:-1, 1:-1] = 0
    return ((labels > 0) * border).sum(dim=(1, 2)) / border.sum()
