r"""Separation, a score without truth: how well a mask's regions separate an image's features.

    eta^2 = sum_l n_l |mu_l - mu|^2 / sum_p |f_p - mu|^2

with the features f_p of the cells p, their mean mu, and mu_l over the n_l cells of label l: the share of the features'
variance that lies between the regions. A region that spills over its object, or leaves a part of it out, mixes unlike
features and lowers the share.

Conventions. Labels index the regions of one image, 0 for background, 1..K for its classes; a region without cells adds
nothing. Features may have any scale: eta^2 doesn't change when they are shifted, scaled or rotated.

Source: the correlation ratio; for one feature and two regions it is the criterion of Otsu, "A Threshold Selection
Method from Gray-Level Histograms", 1979, eq. 18.
"""

from jaxtyping import Float, UInt8
from torch import Tensor

COLOUR_WEIGHT = 0.25
"""Weight of the colours' separation relative to that of the learned features. It was chosen on the synthetic images and
one half of VOC's (benchmarks/sweep.md)."""

_EPS = 1e-12


def separation(
    features: Float[Tensor, "D h w"], labels: UInt8[Tensor, "S _h _w"], *, num_labels: int
) -> Float[Tensor, " S"]:
    """Computes eta^2 of each of S labellings of one image.

    Args:
        features: features of each cell.
        labels: index of each cell's region, below `num_labels`.
        num_labels: 1 + K.

    Returns:
        Values in [0, 1]; 0 for a labelling of one region, or if all features are equal.

    Raises:
        ValueError: the grids differ.
    """
    if labels.shape[1:] != features.shape[1:]:
        raise ValueError(
            f"labels lie on a grid of {tuple(labels.shape[1:])} cells and features on {tuple(features.shape[1:])}; "
            "label the cells of the features' grid"
        )
    centred = features.flatten(1)
    centred = centred - centred.mean(dim=1, keepdim=True)
    total = centred.square().sum()
    flat = labels.flatten(1)
    between = centred.new_zeros(len(flat))
    for label in range(num_labels):
        region = (flat == label).to(centred.dtype)
        between += (region @ centred.T).square().sum(dim=1) / region.sum(dim=1).clamp(min=1)
    return (between / total.clamp(min=_EPS)).clamp(0, 1)


def objective(
    feature_separation: Float[Tensor, "*batch"], colour_separation: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Combines both separations: eta^2 of the features times that of the colours to the power of 1/4; higher is better.

    The features show what belongs together but nothing smaller than a cell; colours do the opposite. A product needs no
    common scale.

    Args:
        feature_separation: eta^2 of the features that the walk went along, for one mask or as a mean over a dataset.
        colour_separation: eta^2 of the cells' mean colours, likewise.

    Returns:
        Values in [0, 1].
    """
    return feature_separation * colour_separation**COLOUR_WEIGHT
