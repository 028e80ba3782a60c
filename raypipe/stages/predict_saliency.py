"""Saliency maps by a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.images import encode_png
from raypipe.networks.onnx_saliency import OnnxSaliency, runs_on_cuda
from raypipe.networks.preprocessing import NamedOrNumbers, preprocessing_of
from raypipe.schema import SALIENCY, columns
from raypipe.stages.base import Kind, Row, Stage
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.decode import pixels_of


@dataclass
class ResizedImage:
    """An image at the network's size."""

    pixels: NDArray[np.uint8]


@dataclass(kw_only=True)
class PredictSaliency(JointStage[ResizedImage]):
    """Saliency (map_height, map_width) of an image as a network gives it, as float32 bytes in [0, 1]; 1 is salient.

    The image is resized to the network's height and width, whatever its own ratio (bilinear, of all pixels that a
    new one covers), as such networks were trained.
    """

    weights: Artifact
    """An ONNX model, known by its content."""
    preprocessing: NamedOrNumbers
    """What the model was trained on, as of `saliency.preprocessing`."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image",)
    writes = pa.schema({"map": pa.binary(), "map_height": pa.int32(), "map_width": pa.int32()})

    @property
    def kind(self) -> Kind:
        """Runs a network where onnxruntime is made for GPUs, else works on the CPU beside those that do."""
        return "device" if runs_on_cuda() else "finish"

    def setup(self, device: str) -> None:
        """Loads the network."""
        uri = self.weights.uri
        self.network = OnnxSaliency(storage.read_bytes(uri), source=uri, device=device)
        self.normalize = preprocessing_of(self.preprocessing).normalize

    def prepare(self, row: Row) -> ResizedImage:
        """Decodes and resizes the image."""
        image = Image.fromarray(pixels_of(row, max_side=self.max_side))
        size = (self.network.width, self.network.height)
        return ResizedImage(np.array(image.resize(size, Image.Resampling.BILINEAR)))

    @torch.inference_mode()
    def compute(self, prepared: Sequence[ResizedImage]) -> list[Row]:
        """Predicts the maps of images, several a pass where the model and `pixels_per_pass` allow."""
        images = [torch.from_numpy(image.pixels).permute(2, 0, 1)[None] for image in prepared]
        together = self.pixels_per_pass if self.network.is_joint else None
        passed = in_passes(self.network, [self.normalize(image) for image in images], pixels_per_pass=together)
        return [_encoded(saliency[0, 0].numpy()) for saliency in passed]


def _encoded(saliency: NDArray[np.float32]) -> Row:
    height, width = saliency.shape
    return {"map": saliency.astype("<f4").tobytes(), "map_height": height, "map_width": width}


@dataclass
class EncodeSaliency(Stage):
    """Saliency (height, width) of an image at its working size, as an 8-bit PNG; 255 is salient."""

    reads = ("map", "map_height", "map_width", "height", "width")
    writes = columns(SALIENCY, "saliency")

    def process(self, row: Row) -> Row:
        """Resizes and encodes one map."""
        values = np.frombuffer(row["map"], "<f4").reshape(1, 1, row["map_height"], row["map_width"]).copy()
        size = (row["height"], row["width"])
        full = F.interpolate(torch.from_numpy(values), size=size, mode="bilinear", align_corners=False)
        return {"saliency": encode_png((full[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy())}
