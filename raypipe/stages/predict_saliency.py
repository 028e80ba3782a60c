"""Saliency maps by a network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.images import encode_png
from raypipe.networks.csnet import SIDE, load_csnet
from raypipe.networks.cuda import to_device
from raypipe.networks.onnx_saliency import OnnxSaliency
from raypipe.networks.preprocessing import IMAGENET
from raypipe.networks.weights import read_state_dict
from raypipe.schema import SALIENCY, columns
from raypipe.stages.base import Kind, Row, Stage
from raypipe.stages.decode import pixels_of

_ONNX_SIDE = 320
"""Of models that take any size."""


@dataclass(kw_only=True)
class PredictSaliency(Stage):
    """Saliency (map_height, map_width) of an image as a network gives it, as float32 bytes in [0, 1]; 1 is salient.

    Images never share a pass, so that a map depends on nothing but its image and the weights.
    """

    source: Literal["csnet", "onnx"]
    weights: Artifact
    """File of the network's published weights, or an ONNX model; known by its content."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image",)
    writes = pa.schema({"map": pa.binary(), "map_height": pa.int32(), "map_width": pa.int32()})

    @property
    def kind(self) -> Kind:
        """Runs a network; onnxruntime's is that of the CPU."""
        return "finish" if self.source == "onnx" else "device"

    def setup(self, device: str) -> None:
        """Loads the network."""
        self.device = torch.device(device)
        self.predict: Callable[[Tensor], Tensor]
        uri = self.weights.uri
        if self.source == "onnx":
            model = OnnxSaliency(storage.read_bytes(uri), source=uri)
            self.predict, self.side = model, model.side or _ONNX_SIDE
        else:
            network = load_csnet(read_state_dict(uri, read=storage.read_bytes), source=uri)
            self.predict, self.side = network.to(self.device), SIDE

    @torch.inference_mode()
    def process(self, row: Row) -> Row:
        """Predicts one image's map.

        Raises:
            ImageError: if the image can't be decoded.
        """
        pixels = pixels_of(row, max_side=self.max_side)
        resized = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BILINEAR)
        image = to_device(torch.from_numpy(np.array(resized)), self.device).permute(2, 0, 1)[None]
        saliency = self.predict(IMAGENET.normalize(image)).float()[0, 0].cpu().numpy()
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
