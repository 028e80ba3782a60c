"""Computes losses as sums and counts, so that distributed training can divide by the counts of all workers.

A mean over the pairs of one worker depends on how the batch is split, and fails if a worker has no foreground pair. So
each term is a sum and a count; a worker divides its own sums by the counts of all workers. The
gradients of all workers then add up to the gradient of the whole batch.

Source: AffinityNet, https://arxiv.org/abs/1803.10464, §3.3, eq. 5.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from raypipe.schema import IGNORE

_EPS = 1e-5
"""Keeps the logarithms finite at affinities of 0 and 1."""


def multilabel_soft_margin(
    logits: Float[Tensor, "B C"], labels: Shaped[Tensor, "B C"], valid: Bool[Tensor, " B"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes the classification loss, summed over the valid images.

        L = -(1/C) sum_c [ y_c log sigmoid(z_c) + (1 - y_c) log(1 - sigmoid(z_c)) ]

    Args:
        logits: z, one column for each class.
        labels: y in {0, 1}; of an invalid image anything.
        valid: False for images that don't count. They aren't taken out, for which a device had to be waited for.

    Returns:
        The sum over the valid images and their number.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)
    return torch.where(valid, loss, 0).sum(), valid.sum().to(loss.dtype)


def affinity_loss_terms(
    affinity: Float[Tensor, "B num_offsets h w"],
    bg_pos: Bool[Tensor, "B num_offsets h w"],
    fg_pos: Bool[Tensor, "B num_offsets h w"],
    neg: Bool[Tensor, "B num_offsets h w"],
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Computes sums and counts of -log(W + 1e-5) over like pairs and -log(1 + 1e-5 - W) over unlike ones.

    Args:
        affinity: W in [0, 1].
        bg_pos: pairs of background cells.
        fg_pos: pairs of cells of the same object class.
        neg: pairs of cells of different classes.

    Returns:
        Sums and counts in the order of the masks.
    """
    attract, repel = -torch.log(affinity + _EPS), -torch.log((1 - affinity) + _EPS)
    sums = torch.stack([(attract * bg_pos).sum(), (attract * fg_pos).sum(), (repel * neg).sum()])
    counts = torch.stack([bg_pos.sum(), fg_pos.sum(), neg.sum()]).to(sums.dtype)
    return sums, counts


def affinity_loss(sums: Float[Tensor, "3"], counts: Float[Tensor, "3"]) -> Float[Tensor, ""]:
    """L = 1/4 L_bg + 1/4 L_fg + 1/2 L_neg, each term sum / max(1, count).

    Args:
        sums: sums of `affinity_loss_terms`.
        counts: counts over all workers. If each worker passes its own sums, the workers' results add up to the loss.

    Returns:
        The loss; a kind of pair that doesn't occur contributes 0.

    Source: AffinityNet §3.3, eq. 5.
    """
    terms = sums / counts.clamp(min=1)
    return terms[0] / 4 + terms[1] / 4 + terms[2] / 2


def pixel_cross_entropy(logits: Float[Tensor, "B L H W"], mask: UInt8[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """Computes -log of the softmax's probability of each pixel's label; it is 0 if the label is 255.

    Args:
        logits: one channel for each class, background first.
        mask: class ids, 255 where unknown.

    Returns:
        The loss of each pixel.
    """
    return F.cross_entropy(logits, mask.long(), ignore_index=IGNORE, reduction="none")
