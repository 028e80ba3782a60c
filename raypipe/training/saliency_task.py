"""The classifier that is taught by saliency, too: EPS and EPS++."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from raypipe.networks import Network, build_saliency_classifier, find_preprocessing
from raypipe.ops.losses import multilabel_soft_margin
from raypipe.ops.saliency import ExplainedLoss, eps_loss, foreground_loss, ird_loss
from raypipe.training.batch import Batch
from raypipe.training.tasks import ClassifierTask


@dataclass(frozen=True, kw_only=True)
class SaliencyTask(ClassifierTask):
    """Multi-label classification plus the saliency's loss, each a mean over the images; `dropped` is only watched."""

    method: Literal["eps", "eps++"]
    ird: bool = True
    """EPS++ drops what is inconsistent; without, its loss is the plain mean squared error."""
    eps_share: float
    """EPS++: share of the epochs, the first ones, that learn as EPS."""
    ird_tau: float | None
    """EPS++: EPS's `tau` after the first epochs, too; None as in the paper."""
    stride: int
    """EPS++ compares crop and saliency reduced by this factor."""

    term_names = ("classification", "saliency", "dropped")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The third is no loss."""
        return "loss_classification", "loss_saliency", "dropped_share"

    def at_epoch(self, epoch: int, num_epochs: int) -> Self:
        """EPS++ starts as EPS.

        Maps of random weights contradict whatever is salient: all of it would be dropped, and the network would learn
        from the background alone that there is nothing else. With neither drop nor `tau`, it would learn that classes
        that the saliency leaves out are background, and its maps would no longer contradict such saliency.
        """
        return self if epoch >= self.eps_share * num_epochs else replace(self, method="eps")

    def build(self) -> Network:
        """The classifier with a map of the background."""
        preprocessing = find_preprocessing(self.preprocessing) if self.preprocessing else None
        return build_saliency_classifier(
            self.backbone, num_classes=self.num_classes, output_stride=self.output_stride, preprocessing=preprocessing
        )

    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:
        """Multi-hot labels (C,) and the crop's saliency in 0..255."""
        return super().target_shapes(crop_size) | {"saliency": (crop_size, crop_size)}

    def loss_terms(self, output: tuple[Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Both losses and the share of dropped pixels, summed over the crops that could be read."""
        logits, scores = (part[batch.valid].float() for part in output)
        labels = batch.targets["labels"][batch.valid].float()
        classification, num_images = multilabel_soft_margin(logits, labels)
        explained = self.explain(scores, batch.targets["saliency"][batch.valid], labels, batch.crops[batch.valid])
        sums = [classification, explained.per_image.sum(), explained.dropped_share.sum()]
        return torch.stack(sums), num_images.expand(3)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """L_cls + L_sal."""
        return (sums[:2] / counts[:2].clamp(min=1)).sum()

    def explain(self, scores: Tensor, saliency: Tensor, labels: Tensor, crops: Tensor) -> ExplainedLoss:
        """The saliency's loss of each image, and its maps.

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
