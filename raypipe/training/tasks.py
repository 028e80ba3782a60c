"""Defines the trainings: networks, their targets, and their losses as sums and counts.

The terms of a loss are sums and counts over a worker's part of the batch. `loss` is linear in the sums and takes the
counts of ALL workers, so the workers' losses add up to exactly the loss of the whole batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from raypipe import storage
from raypipe.artifacts import NOT_IN_DIGEST, Artifact
from raypipe.data.checkpoints import WEIGHTS_FILE, Task
from raypipe.networks import (
    Network,
    build_affinity_net,
    build_classifier,
    build_segmenter,
    load_weights,
)
from raypipe.networks.preprocessing import Preprocessing
from raypipe.ops.affinity import affinity_labels, pairwise_affinity
from raypipe.ops.losses import affinity_loss, affinity_loss_terms, multilabel_soft_margin, pixel_cross_entropy
from raypipe.schema import GRID_STRIDE, IGNORE
from raypipe.training.batch import Batch


@dataclass(frozen=True, kw_only=True)
class TrainingTask(ABC):
    """A network to train, its targets and its loss."""

    backbone: str
    weights: str | Artifact | None
    """URI of pretrained weights, or a checkpoint to start from; None starts from random numbers."""
    preprocessing: Preprocessing | None
    """What the weights were trained on; None takes the backbone's usual one."""
    staged_weights: str | None = field(default=None, metadata=NOT_IN_DIGEST)
    """URI at which every node reaches the pretrained weights; None where it is `weights`."""

    name: ClassVar[Task]
    term_names: ClassVar[tuple[str, ...]]
    """Names of the T terms; each has a sum and a count."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the terms in an epoch's metrics."""
        return tuple(f"loss_{name}" for name in self.term_names)

    def at_epoch(self, epoch: int, num_epochs: int) -> Self:  # noqa: ARG002 - for tasks that change
        """Returns the task of an epoch, counted from 0; by default, all epochs have the same."""
        return self

    def build(self) -> Network:
        """Builds the network with random weights and the configured preprocessing, or else the backbone's."""
        network = self.build_network()
        if self.preprocessing:
            network.preprocessing = self.preprocessing
        return network

    @abstractmethod
    def build_network(self) -> Network:
        """Builds the network with random weights, and the preprocessing that its backbone asks for."""

    def build_pretrained(self) -> Network:
        """Builds the network with the configured weights; without any, they stay random."""
        network = self.build()
        if isinstance(self.weights, Artifact):
            load_weights(network, storage.join(self.weights.uri, WEIGHTS_FILE), read=storage.read_bytes)
        elif self.weights is not None:
            load_weights(network, self.staged_weights or self.weights, read=storage.read_bytes)
        return network

    @abstractmethod
    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:
        """Returns names and shapes of one crop's uint8 targets, in the order in which the stage makes them."""

    @abstractmethod
    def loss_terms(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the sums and counts (T,) of a worker's part of the batch; `output` is the network's output."""

    @abstractmethod
    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Returns the loss of sums and counts (T,); it is linear in the sums."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTask(TrainingTask):
    """Multi-label classification (AffinityNet §3.1)."""

    num_classes: int
    output_stride: int

    name = "classifier"
    term_names: ClassVar[tuple[str, ...]] = ("classification",)

    def build_network(self) -> Network:
        """Builds the classifier."""
        return build_classifier(self.backbone, num_classes=self.num_classes, output_stride=self.output_stride)

    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:  # noqa: ARG002 - labels have no size
        """Returns the shape of the multi-hot labels (C,)."""
        return {"labels": (self.num_classes,)}

    def loss_terms(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the multi-label soft margin loss of the crops that could be read."""
        total, count = multilabel_soft_margin(output.float(), batch.targets["labels"], batch.valid)
        return total.reshape(1), count.reshape(1)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Returns the mean over images and classes."""
        return sums[0] / counts[0].clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class AffinityTask(TrainingTask):
    """Pixel affinities (AffinityNet §3.2, eqs. 4-8)."""

    radius: int
    freeze_backbone: bool = False

    name = "affinity"
    term_names = ("background", "foreground", "negative")

    def build_network(self) -> Network:
        """Builds the AffinityNet."""
        network = build_affinity_net(self.backbone)
        if self.freeze_backbone:
            network.backbone.requires_grad_(requires_grad=False)
        return network

    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of the trimap's grid."""
        return {"trimap": (crop_size // GRID_STRIDE, crop_size // GRID_STRIDE)}

    def loss_terms(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the affinity loss; a crop that couldn't be read has a trimap of 255 only, and so no pairs."""
        background, foreground, negative = affinity_labels(batch.targets["trimap"], radius=self.radius)
        affinity = pairwise_affinity(output.float(), radius=self.radius)
        return affinity_loss_terms(affinity, background, foreground, negative)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Returns 1/4 background + 1/4 foreground + 1/2 negative pairs."""
        return affinity_loss(sums, counts)


@dataclass(frozen=True, kw_only=True)
class SegmenterTask(TrainingTask):
    """Segmentation, of true masks and of pseudo-masks: L = CE(true masks) + CE(pseudo-masks), 255 ignored."""

    num_classes: int
    head: str

    name = "segmenter"
    term_names = ("mask", "weak")

    def build_network(self) -> Network:
        """Builds the segmentation network."""
        return build_segmenter(self.backbone, head=self.head, num_classes=self.num_classes)

    def target_shapes(self, crop_size: int) -> dict[str, tuple[int, ...]]:
        """Class ids of the pixels, and whether the mask is a true one."""
        return {"mask": (crop_size, crop_size), "is_true": (1,)}

    def loss_terms(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pixel losses of true masks, then of pseudo-masks; a crop that couldn't be read has no labelled pixel."""
        mask = batch.targets["mask"]
        loss = pixel_cross_entropy(F.interpolate(output.float(), size=mask.shape[-2:], mode="bilinear"), mask)
        is_true = batch.targets["is_true"][:, :, None] == 1
        kinds = [(mask != IGNORE) & is_true, (mask != IGNORE) & ~is_true]
        sums = torch.stack([(loss * pixels).sum() for pixels in kinds])
        return sums, torch.stack([pixels.sum() for pixels in kinds]).to(sums.dtype)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The mean over pixels of true masks plus that of pseudo-masks."""
        return (sums / counts.clamp(min=1)).sum()
