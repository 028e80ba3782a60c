"""What a classifier says of an image's labels, and the features that it says it from: one pass of the whole image."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.artifacts import NOT_IN_DIGEST, Artifact
from raypipe.config.base import Precision
from raypipe.networks import AnyClassifier, network_input
from raypipe.networks.precision import autocasting
from raypipe.networks.preprocessing import Preprocessing
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_classifier, load_pretrained


@dataclass(frozen=True)
class WholeImage:
    """An image (H, W, 3)."""

    pixels: NDArray[np.uint8]


@dataclass(kw_only=True)
class OnWholeImages(JointStage[WholeImage]):
    """One vector of float32 for each image."""

    output_stride: Literal[8, 16]
    """That of the classifier's training."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    reads = ("image",)

    def setup(self, device: str) -> None:
        """Loads the network."""
        self.network = self.load(device)
        self.device = torch.device(device)

    def prepare(self, row: Row) -> WholeImage:
        """Takes the pixels."""
        return WholeImage(pixels_of(row, max_side=self.max_side))

    @torch.inference_mode()
    def compute(self, prepared: Sequence[WholeImage]) -> list[Row]:
        """Passes the images."""
        preprocessing = self.network.preprocessing
        inputs = [network_input(one.pixels, preprocessing=preprocessing, device=self.device)[0] for one in prepared]
        network = autocasting(self.vectors, self.device, self.precision)
        found = in_passes(network, inputs, pixels_per_pass=self.pixels_per_pass)
        (name,) = self.writes.names
        return [{name: vector} for vector in torch.cat(found).float().cpu().numpy()] if found else []

    @abstractmethod
    def load(self, device: str) -> AnyClassifier:
        """The network, ready."""

    @abstractmethod
    def vectors(self, x: Tensor) -> Tensor:
        """What is written (B, D) of normalised images (B, 3, H, W)."""


@dataclass(kw_only=True)
class ScoreLabels(OnWholeImages):
    """The classifier's logits of all classes."""

    classifier: Artifact
    """The checkpoint."""

    writes = pa.schema([pa.field("logits", pa.list_(pa.float32()))])

    def load(self, device: str) -> AnyClassifier:
        """Loads the classifier."""
        uri = self.classifier.uri
        return load_classifier(uri, device=device, precision=self.precision, output_stride=self.output_stride)

    def vectors(self, x: Tensor) -> Tensor:
        """Its logits."""
        return self.network.classify(x)


@dataclass(kw_only=True)
class PoolFeatures(OnWholeImages):
    """A backbone's last map, averaged over the image: what a classifier is a linear function of."""

    backbone: str
    weights: str | Artifact
    """URI of pretrained weights, or a classifier's checkpoint."""
    preprocessing: Preprocessing | None
    staged_weights: str | None = field(default=None, metadata=NOT_IN_DIGEST)
    """URI at which every node reaches the pretrained weights; None where it is `weights`."""

    writes = pa.schema([pa.field("features", pa.list_(pa.float32()))])

    def load(self, device: str) -> AnyClassifier:
        """Loads the backbone."""
        if isinstance(self.weights, Artifact):
            uri = self.weights.uri
            return load_classifier(uri, device=device, precision=self.precision, output_stride=self.output_stride)
        return load_pretrained(
            self.backbone,
            self.staged_weights or self.weights,
            preprocessing=self.preprocessing,
            device=device,
            precision=self.precision,
            output_stride=self.output_stride,
        )

    def vectors(self, x: Tensor) -> Tensor:
        """Its pooled features."""
        features: Tensor = self.network.backbone(x)[self.network.backbone.last_depth]
        return features.float().mean(dim=(2, 3))
