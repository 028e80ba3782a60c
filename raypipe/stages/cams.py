"""Multi-scale class activation maps of the classes that an image is labelled with (AffinityNet §3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_image
from raypipe.networks.precision import autocast
from raypipe.ops.cam import merge_cams, normalize_cams
from raypipe.stages.base import Row
from raypipe.stages.joint import JointStage, in_passes
from raypipe.stages.networks import load_classifier, network_input


@dataclass
class LabelledImage:
    """An image on its way through the passes."""

    pixels: NDArray[np.uint8]
    channels: list[int]
    """The classifier's, of the image's labels."""
    passes: list[Tensor] = field(default_factory=list)
    """Maps (K, h, w) so far."""
    mirrored: list[bool] = field(default_factory=list)
    scaled_sizes: list[tuple[int, int]] = field(default_factory=list)


class ComputeCams(JointStage[LabelledImage]):
    """CAMs (K, cam_height, cam_width) in [0, 1] of the K labelled classes, as float16 bytes.

    Every scale is one pass of the image and its mirror image. Without `pixels_per_pass` a pass never holds another
    image, so that a map depends on nothing but its image and the checkpoint.
    """

    reads = ("image", "class_ids")
    writes = pa.schema(
        [pa.field("cam", pa.binary()), pa.field("cam_height", pa.int32()), pa.field("cam_width", pa.int32())]
    )

    def __init__(
        self,
        *,
        checkpoint: str,
        scales: Sequence[float],
        mirror: bool,
        output_stride: Literal[8, 16],
        out_stride: int,
        max_side: int,
        precision: Literal["auto", "fp32", "bf16"],
        pixels_per_pass: int | None = None,
    ) -> None:
        self.network, _, self.device = load_classifier(checkpoint, output_stride=output_stride)
        self.scales = tuple(scales)
        self.mirror = mirror
        self.output_stride = output_stride
        self.out_stride = out_stride
        self.max_side = max_side
        self.precision = precision
        self.pixels_per_pass = pixels_per_pass

    def prepare(self, row: Row) -> LabelledImage:
        """Decodes the image."""
        pixels = decode_image(row["image"], max_side=self.max_side).pixels
        return LabelledImage(pixels, [class_id - 1 for class_id in row["class_ids"]])

    @torch.inference_mode()
    def compute(self, prepared: Sequence[LabelledImage]) -> list[Row]:
        """Runs the passes, those of images without labels apart, and merges each image's."""
        labelled = [image for image in prepared if image.channels]
        for scale in self.scales:
            inputs = [self._input(image, scale) for image in labelled]
            outputs = in_passes(self._maps, inputs, pixels_per_pass=self.pixels_per_pass)
            for image, maps in zip(labelled, outputs, strict=True):
                image.passes += maps[0][:, image.channels].float()
                image.mirrored += [False, True][: len(maps[0])]
        return [self._encode(image) for image in prepared]

    def _input(self, image: LabelledImage, scale: float) -> Tensor:
        preprocessing = self.network.preprocessing
        x, size = network_input(image.pixels, preprocessing=preprocessing, device=self.device, scale=scale)
        image.scaled_sizes += [size] * (1 + self.mirror)
        return x

    def _maps(self, x: Tensor) -> Tensor:
        """Maps (B, 1 or 2, C, h, w) of images (B, 3, H, W) and, with `mirror`, of their mirror images."""
        both = torch.cat([x, x.flip(-1)]) if self.mirror else x
        with autocast(self.device, self.precision):
            maps: Tensor = self.network.cam(both)
        return maps.reshape(-1, len(x), *maps.shape[1:]).transpose(0, 1)

    def _encode(self, image: LabelledImage) -> Row:
        image_size = (image.pixels.shape[0], image.pixels.shape[1])
        if image.passes:
            merged = merge_cams(
                image.passes,
                mirrored=image.mirrored,
                scaled_sizes=image.scaled_sizes,
                image_size=image_size,
                stride=self.output_stride,
                out_stride=self.out_stride,
            )
        else:
            merged = torch.zeros(0, *(-(-side // self.out_stride) for side in image_size))
        cam = normalize_cams(merged).cpu().numpy()
        return {"cam": encode_cam(cam), "cam_height": cam.shape[1], "cam_width": cam.shape[2]}
