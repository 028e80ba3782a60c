r"""Class consistency: how much of a class the classifier finds in its region and misses outside; a score without truth.

    s = mean_c [ p_c(only region c is shown) - p_c(only region c is hidden) ],    p = sigmoid of the classifier's logits

A region that holds all of its object, and nothing else, keeps the class where it is shown and takes it away where it is
hidden. What is not shown is filled with the image's mean colour.

Conventions. Regions and channels are those of the image's labels, in one order. A region may be empty: then nothing is
shown, and nothing hidden.

What it doesn't say. A region of the whole image scores like a right one: what spills over costs only as far as it hides
nothing more and shows what speaks against the class. And maps that come from the same classifier are beyond it: they
part what it looks at, whatever that is.

Source: the preservation and deletion games of Fong & Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful
Perturbation", ICCV 2017, §4.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_copies(image: Float[Tensor, "3 H W"], regions: Bool[Tensor, "K _H _W"]) -> Float[Tensor, "2*K 3 H W"]:
    """Copies of an image: K that show a region alone, then K that hide it.

    Args:
        image: a network's input, without padding.
        regions: True inside.

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
    """The score s of one image.

    Args:
        logits: of `masked_copies`.
        channels: the classifier's, of the K regions; at least one.

    Returns:
        A value in [-1, 1].

    Raises:
        ValueError: there aren't two copies a region.
    """
    if not channels or len(logits) != 2 * len(channels):
        raise ValueError(f"got logits of {len(logits)} copies for {len(channels)} regions; two each are needed")
    found = torch.cat([copies[range(len(channels)), list(channels)] for copies in logits.chunk(2)]).sigmoid()
    shown, hidden = found.chunk(2)
    return (shown - hidden).mean()
