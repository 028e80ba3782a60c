"""The training of a classifier that also learns from saliency maps: EPS and EPS++."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from raypipe.networks import Network, build_saliency_classifier
from raypipe.ops.losses import multilabel_soft_margin
from raypipe.ops.saliency import ExplainedLoss, eps_loss, foreground_loss, ird_loss
from raypipe.training.batch import Batch
from raypipe.training.tasks import ClassifierTask


@dataclass(frozen=True, kw_only=True)
class SaliencyTask(ClassifierTask):
    """Multi-label classification plus the saliency loss, each a mean over the images; `dropped` is only reported."""

    method: Literal["eps", "eps++"]
    ird: bool = True
    """EPS++ drops inconsistent pixels; otherwise its loss is the plain mean squared error."""
    eps_share: float
    """EPS++: the first epochs, this share of all, learn as EPS does."""
    ird_tau: float | None
    """EPS++: EPS's `tau` for the epochs after these; None, as in the paper, keeps every labelled class."""
    stride: int
    """EPS++ compares crop and saliency after reducing both by this factor."""

    term_names = ("classification", "saliency", "dropped")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the terms in an epoch's metrics; the third isn't a loss."""
        return "loss_classification", "loss_saliency", "dropped_share"

    def at_epoch(self, epoch: int, num_epochs: int) -> Self:
        """Returns the task of an epoch: EPS++ starts as EPS.

        Maps of random weights contradict all that is salient. If all of it were dropped, the network would learn from
        the background only, and find nothing else. With neither drop nor `tau`, it would learn that the classes which
        the saliency leaves out are background, and its maps would no longer contradict such saliency.
        """
        return self if epoch >= self.eps_share * num_epochs else replace(self, method="eps")

    def build_network(self) -> Network:
        """Builds the classifier with a map of the background."""
        return build_saliency_classifier(self.backbone, num_classes=self.num_classes, output_stride=self.output_stride)

    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the multi-hot labels (C,) and of the crop's saliency in 0..255."""
        return super().target_shapes(crop_size) | {"saliency": (crop_size, crop_size)}

    def loss_terms(self, output: tuple[Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns both losses and the share of dropped pixels, summed over the crops that could be read."""
        logits, scores = (part.float() for part in output)
        labels = batch.targets["labels"]
        classification, num_images = multilabel_soft_margin(logits, labels, batch.valid)
        explained = self.explain(scores, batch.targets["saliency"], labels, batch.crops)
        per_image = (explained.per_image, explained.dropped_share)
        sums = [classification, *(torch.where(batch.valid, values, 0).sum() for values in per_image)]
        return torch.stack(sums), num_images.expand(3)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Returns L_cls + L_sal."""
        return (sums[:2] / counts[:2].clamp(min=1)).sum()

    def explain(self, scores: Tensor, saliency: Tensor, labels: Tensor, crops: Tensor) -> ExplainedLoss:
        """Returns the saliency loss of each image, with its maps.

        Args:
            scores: (B, C + 1, h, w) logits of the pixels.
            saliency: (B, S, S) in 0..255.
            labels: (B, C) multi-hot.
            crops: (B, 3, S, S) in 0..255, RGB.
        """
        expected = saliency[:, None].float() / 255
        if self.method == "eps":
            return eps_loss(scores, expected, labels)
        expected = F.avg_pool2d(expected, self.stride)
        if not self.ird:
            return foreground_loss(scores, expected, labels, tau=self.ird_tau)
        image = F.avg_pool2d(crops.float() / 255, self.stride)
        return ird_loss(scores, expected, labels, image, tau=self.ird_tau)
