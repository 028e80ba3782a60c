r"""Losses that compare the foreground of a classifier's maps with a saliency map: EPS and EPS++.

    M = softmax over the C + 1 channels of the logits      B(x) = 1[x > 0.5]      y: labels      M_s: saliency

EPS (`eps_loss`): a class whose map lies outside the saliency, O_k = |B(M_k) & B(M_s)| / |B(M_k)| <= tau, belongs to the
background.

    M_fg = sum_k y_k M_k 1[O_k > tau]       M_bg = sum_k y_k M_k 1[O_k <= tau] + M_{C+1}
    L = mean_p (M_s - lam M_fg - (1 - lam) (1 - M_bg))^2

EPS++ (`ird_loss`): PAMR moves the foreground to the image's edges; where the saliency then contradicts it, the saliency
is taken to be wrong, and those pixels are dropped (Inconsistent Region Drop).

    M_fg = sum_k y_k M_k       N = B(PAMR(M_fg)) xor B(M_s)
    L = sum_p (1 - N_p) (M_s - M_fg)^2 / max(1, sum_p 1 - N_p)

EPS++ doesn't choose classes, but an option adds EPS's 1[O_k > tau] to its M_fg.

Conventions. The background is the LAST channel. Maps lie on the logits' grid, to which EPS brings the saliency by
nearest neighbour; EPS++ brings M_fg to the saliency's size bilinearly, align_corners=True. No gradient goes
through the decisions O_k and N. Each image has a loss, the mean over its pixels; workers add up the losses of images,
so the sum is that of the whole batch.

Source: EPS: Lee et al., "Railroad is not a Train: Saliency as Pseudo-pixel Supervision for Weakly Supervised Semantic
Segmentation", CVPR 2021, https://arxiv.org/abs/2105.08965, §3.2. EPS++: Lee et al., "Saliency as Pseudo-Pixel
Supervision for Weakly and Semi-Supervised Semantic Segmentation", TPAMI 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from raypipe.ops.pamr import DILATIONS, pamr

_EPS = 1e-4
"""Added per pixel to the denominator of O_k, as in the authors' released code: a class without pixels has O_k = 0."""


@dataclass(frozen=True, kw_only=True)
class ExplainedLoss:
    """A loss and the maps that explain it; `h w` is the grid of the logits for EPS, and of the saliency for EPS++."""

    per_image: Float[Tensor, " B"]
    """L of each image."""
    saliency: Float[Tensor, "B 1 h w"]
    """M_s on the grid of the comparison."""
    foreground: Float[Tensor, "B 1 h w"]
    """M_fg."""
    background: Float[Tensor, "B 1 h w"]
    """M_bg; for EPS++, the last channel's map."""
    estimate: Float[Tensor, "B 1 h w"]
    """The map that is compared with the saliency; for EPS++, M_fg."""
    refined: Float[Tensor, "B 1 h w"]
    """PAMR(M_fg); for EPS, which refines nothing, M_fg."""
    inconsistent_region: Bool[Tensor, "B 1 h w"]
    """N, the pixels that are dropped; for EPS, none."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The mean over the images."""
        return self.per_image.sum() / max(1, len(self.per_image))

    @property
    def dropped_share(self) -> Float[Tensor, " B"]:
        """Share of each image's pixels that is dropped."""
        return self.inconsistent_region.flatten(1).to(self.per_image.dtype).mean(dim=1)


def eps_loss(
    logits: Float[Tensor, "B _channels h w"],
    saliency: Float[Tensor, "B 1 H W"],
    labels: Shaped[Tensor, "B C"],
    *,
    tau: float | int = 0.4,
    lam: float | int = 0.5,
) -> ExplainedLoss:
    """EPS: the mean squared difference between the saliency and its estimate from the maps.

    Args:
        logits: of each pixel, background last.
        saliency: M_s in [0, 1], of any size.
        labels: y, multi-hot.
        tau: a class's map has to overlap the saliency more than this to be foreground.
        lam: weight of the foreground's estimate against the background's. The paper: 0.5 for VOC, 0.9 for COCO.

    Returns:
        The loss and its maps on the logits' grid.

    Raises:
        ValueError: the channels aren't the labels' and one more, or `lam` or `tau` isn't in [0, 1].
    """
    _check_channels(logits, labels)
    if not (0 <= tau <= 1 and 0 <= lam <= 1):
        raise ValueError(f"expected tau and lam in [0, 1] (the paper: 0.4 and 0.5), got {tau} and {lam}")
    saliency = F.interpolate(saliency, size=logits.shape[2:], mode="nearest")
    objects, background = _object_maps(logits, labels)
    salient = _salient_classes(objects, saliency, tau=tau)
    foreground = (objects * salient).sum(dim=1, keepdim=True)
    background = background + (objects * ~salient).sum(dim=1, keepdim=True)
    estimate = lam * foreground + (1 - lam) * (1 - background)
    return _explain(saliency, foreground, background, estimate)


def ird_loss(
    logits: Float[Tensor, "B _channels h w"],
    saliency: Float[Tensor, "B 1 H W"],
    labels: Shaped[Tensor, "B C"],
    image: Float[Tensor, "B 3 _H _W"],
    *,
    num_iters: int = 10,
    dilations: Sequence[int] = DILATIONS,
    tau: float | int | None = None,
) -> ExplainedLoss:
    """EPS++: the mean squared difference between saliency and foreground in the pixels that aren't dropped.

    Args:
        logits: of each pixel, background last.
        saliency: M_s in [0, 1].
        labels: y, multi-hot.
        image: RGB in [0, 1], of the saliency's size.
        num_iters: rounds of PAMR.
        dilations: distances of PAMR's neighbours in pixels.
        tau: see `foreground_loss`.

    Returns:
        The loss and its maps at the saliency's size. An image all of whose pixels are dropped has loss 0.

    Raises:
        ValueError: the channels aren't the labels' and one more, the image isn't of the saliency's size, `tau` isn't in
            [0, 1], or as `pamr`.
    """
    if image.shape[2:] != saliency.shape[2:]:
        raise ValueError(
            f"the image has {tuple(image.shape[2:])} pixels and the saliency {tuple(saliency.shape[2:])}; "
            "resize the image to the saliency's size"
        )
    everywhere = foreground_loss(logits, saliency, labels, tau=tau)
    foreground = everywhere.foreground
    refined = pamr(image, foreground.detach(), num_iters=num_iters, dilations=dilations)
    inconsistent = (refined > 0.5) != (saliency > 0.5)
    kept = (~inconsistent).to(foreground.dtype)
    squares = (saliency - foreground).square() * kept
    per_image = squares.sum(dim=(1, 2, 3)) / kept.sum(dim=(1, 2, 3)).clamp(min=1)
    return replace(everywhere, per_image=per_image, refined=refined, inconsistent_region=inconsistent)


def foreground_loss(
    logits: Float[Tensor, "B _channels h w"],
    saliency: Float[Tensor, "B 1 H W"],
    labels: Shaped[Tensor, "B C"],
    *,
    tau: float | int | None = None,
) -> ExplainedLoss:
    """EPS++ without its drop: the mean squared difference between saliency and foreground in all pixels.

    Args:
        logits: as in `ird_loss`.
        saliency: as in `ird_loss`.
        labels: as in `ird_loss`.
        tau: EPS's tau in M_fg = sum_k y_k M_k 1[O_k > tau]; None, as in EPS++'s paper, takes every labelled class.

    Returns:
        The loss and its maps at the saliency's size.

    Raises:
        ValueError: the channels aren't the labels' and one more, or `tau` isn't in [0, 1].
    """
    _check_channels(logits, labels)
    if tau is not None and not 0 <= tau <= 1:
        raise ValueError(f"expected tau in [0, 1] (EPS: 0.4) or None, got {tau}")
    objects, background = _object_maps(logits, labels)
    if tau is not None:
        on_grid = F.interpolate(saliency, size=logits.shape[2:], mode="nearest")
        objects = objects * _salient_classes(objects, on_grid, tau=tau)
    size = saliency.shape[2:]
    foreground, background = (
        F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
        for maps in (objects.sum(dim=1, keepdim=True), background)
    )
    return _explain(saliency, foreground, background, foreground)


def _explain(saliency: Tensor, foreground: Tensor, background: Tensor, estimate: Tensor) -> ExplainedLoss:
    """Compares saliency and estimate in all pixels, with nothing refined and nothing dropped."""
    return ExplainedLoss(
        per_image=(saliency - estimate).square().mean(dim=(1, 2, 3)),
        saliency=saliency,
        foreground=foreground,
        background=background,
        estimate=estimate,
        refined=foreground.detach(),
        inconsistent_region=torch.zeros_like(saliency, dtype=torch.bool),
    )


def _object_maps(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns M of the classes, (B, C, h, w), 0 for those that an image lacks, and M_{C+1}, (B, 1, h, w)."""
    maps = logits.softmax(dim=1)
    return maps[:, :-1] * (labels > 0)[..., None, None], maps[:, -1:]


def _salient_classes(objects: Tensor, saliency: Tensor, *, tau: float) -> Tensor:
    """Returns 1[O_k > tau], (B, C, 1, 1), for the classes' maps and the saliency on their grid, without gradient."""
    shown = (objects.detach() > 0.5).to(objects.dtype)
    overlap = (shown * (saliency > 0.5)).sum(dim=(2, 3)) / (shown + _EPS).sum(dim=(2, 3))
    return (overlap > tau)[..., None, None]


def _check_channels(logits: Tensor, labels: Tensor) -> None:
    if logits.shape[1] != labels.shape[1] + 1:
        raise ValueError(
            f"logits have {logits.shape[1]} channels and labels {labels.shape[1]}; "
            "logits need one channel a class and the background's last"
        )
