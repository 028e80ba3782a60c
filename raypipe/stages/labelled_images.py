"""What the stages share that run a classifier on images whose labels they know."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_classifier


@dataclass(frozen=True)
class LabelledImage:
    """An image and the classes whose maps are wanted."""

    pixels: NDArray[np.uint8]
    class_ids: list[int]
    """Of the image's labels."""


@dataclass(kw_only=True)
class OnLabelledImages(JointStage[LabelledImage]):
    """A classifier's stage that looks at the maps of an image's labels."""

    classifier: Artifact
    """The checkpoint."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    reads = ("image", "class_ids")

    def setup(self, device: str) -> None:
        """Loads the classifier."""
        self.network = load_classifier(self.classifier.uri, device=device, precision=self.precision)
        self.device = torch.device(device)

    def prepare(self, row: Row) -> LabelledImage:
        """Takes the pixels and the labels."""
        return LabelledImage(pixels_of(row, max_side=self.max_side), list(row["class_ids"]))
