"""Saliency maps by a network."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from raypipe import storage
from raypipe.data.images import decode_image, encode_png
from raypipe.networks.onnx_saliency import OnnxSaliency
from raypipe.networks.precision import default_device
from raypipe.networks.preprocessing import IMAGENET
from raypipe.networks.saliency_networks import SALIENCY_NETWORKS, load_saliency_network
from raypipe.networks.weights import read_state_dict
from raypipe.stages.base import Row, Stage

_ONNX_SIDE = 320
"""Of models that take any size."""


class PredictSaliency(Stage):
    """Saliency (height, width) of an image at its working size, as an 8-bit PNG; 255 is salient.

    Images never share a pass, so that a map depends on nothing but its image and the weights.
    """

    reads = ("image_id", "image_uri")
    writes = pa.schema(
        [pa.field("height", pa.int32()), pa.field("width", pa.int32()), pa.field("saliency", pa.binary())]
    )

    def __init__(self, *, source: Literal["csnet", "onnx"], weights: str, side: int | None, max_side: int) -> None:
        self.device = default_device()
        self.max_side = max_side
        self.predict: Callable[[Tensor], Tensor]
        if source == "onnx":
            model = OnnxSaliency(storage.read_bytes(weights), source=weights)
            self.predict, self.side = model, side or model.side or _ONNX_SIDE
            self.preprocessing = IMAGENET
        else:
            network = load_saliency_network(source, read_state_dict(weights, read=storage.read_bytes), source=weights)
            self.predict = network.to(self.device)
            self.side = side or SALIENCY_NETWORKS[source].side
            self.preprocessing = SALIENCY_NETWORKS[source].preprocessing

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches the images of all rows at once."""
        wanted = {row["image_uri"] for row in rows if row.get("error_stage") is None and row["image_uri"]}
        contents = storage.read_many(wanted)
        return super().process_all([row | {"content": contents.get(row["image_uri"])} for row in rows])

    @torch.inference_mode()
    def process(self, row: Row) -> Row:
        """Predicts one image's map.

        Raises:
            ValueError: an image that can't be decoded, or a row without `image_uri`.
            OSError: if the image can't be fetched.
        """
        if not row["image_uri"]:
            raise ValueError("image_uri is empty; give the image's path or URI")
        data = row["content"] if "content" in row else storage.read_bytes(row["image_uri"])
        if isinstance(data, Exception):
            raise data
        pixels = decode_image(data, max_side=self.max_side).pixels
        height, width = pixels.shape[:2]
        resized = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BILINEAR)
        image = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1)[None]
        saliency = self.predict(self.preprocessing.normalize(image)).float()
        full = F.interpolate(saliency, size=(height, width), mode="bilinear", align_corners=False)
        values = (full[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        return {"height": height, "width": width, "saliency": encode_png(values)}
