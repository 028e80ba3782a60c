r"""Class consistency, a score without truth: what the classifier finds of a class in its region and misses outside.

    s = mean_c [ p_c(only region c is shown) - p_c(only region c is hidden) ],    p = sigmoid of the classifier's logits

If a region holds all of its object and nothing else, the class is found when only the region is shown, and lost when it
is hidden. The other pixels are filled with the image's mean colour.

Conventions. Regions and channels are those of the image's labels, in one order. For an empty
region, nothing is shown and nothing is hidden.

Limits. A region of the whole image scores like a right one: spilling over costs only if it hides nothing more and shows
pixels that speak against the class. Nor can it judge maps that come from the same classifier: they show what the
classifier looks at, whatever that is.

Source: the preservation and deletion games of Fong & Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful
Perturbation", ICCV 2017, §4.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_copies(image: Float[Tensor, "3 H W"], regions: Bool[Tensor, "K _H _W"]) -> Float[Tensor, "2*K 3 H W"]:
    """Makes copies of an image: K that show one region only, then K that hide it.

    Args:
        image: a network's input, without padding.
        regions: True inside the region.

    Raises:
        ValueError: image and regions differ in size.
    """
    if regions.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"regions have {tuple(regions.shape[1:])} pixels and the image {tuple(image.shape[1:])}; "
            "resize the regions to the image"
        )
    fill = image.mean(dim=(1, 2), keepdim=True)
    shown = regions[:, None]
    return torch.cat([torch.where(shown, image, fill), torch.where(shown, fill, image)])


def class_consistency(logits: Float[Tensor, "copies C"], channels: Sequence[int]) -> Float[Tensor, ""]:
    """Returns the score s of one image.

    Args:
        logits: the classifier's logits of `masked_copies`.
        channels: the classifier's channels of the K regions, at least one.

    Returns:
        A value in [-1, 1].

    Raises:
        ValueError: there aren't two copies for each region.
    """
    if not channels or len(logits) != 2 * len(channels):
        raise ValueError(f"expected logits of two copies for each of {len(channels)} regions, got {len(logits)}")
    shown, hidden = (
        # One by one: an index that is a list would be copied to the device, which would be waited for.
        torch.stack([copies[region, channel] for region, channel in enumerate(channels)]).sigmoid()
        for copies in logits.chunk(2)
    )
    return (shown - hidden).mean()
