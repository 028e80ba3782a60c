"""Multi-scale class activation maps of the classes that an image is labelled with (AffinityNet §3.1)."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import torch

from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_image
from raypipe.networks.precision import autocast
from raypipe.ops.cam import merge_cams, normalize_cams
from raypipe.stages.base import Row, Stage
from raypipe.stages.networks import load_classifier, network_input


class ComputeCams(Stage):
    """CAMs (K, cam_height, cam_width) in [0, 1] of the K labelled classes, as float16 bytes.

    Every scale is one batch of the image and its mirror image; the batch never holds another image, so that a map
    depends on nothing but its image and the checkpoint.
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
    ) -> None:
        self.network, _, self.device = load_classifier(checkpoint, output_stride=output_stride)
        self.scales = tuple(scales)
        self.mirror = mirror
        self.output_stride = output_stride
        self.out_stride = out_stride
        self.max_side = max_side
        self.precision = precision

    @torch.inference_mode()
    def process(self, row: Row) -> Row:
        """Runs the passes of one image and merges them."""
        pixels = decode_image(row["image"], max_side=self.max_side).pixels
        image_size = (pixels.shape[0], pixels.shape[1])
        channels = [class_id - 1 for class_id in row["class_ids"]]
        passes, mirrored, scaled_sizes = [], [], []
        for scale in self.scales if channels else ():
            x, scaled_size = network_input(
                pixels, preprocessing=self.network.preprocessing, device=self.device, scale=scale
            )
            x = torch.cat([x, x.flip(-1)]) if self.mirror else x
            with autocast(self.device, self.precision):
                cams = self.network.cam(x)[:, channels].float()
            passes += list(cams)
            mirrored += [False, True][: len(x)]
            scaled_sizes += [scaled_size] * len(x)
        if channels:
            merged = merge_cams(
                passes,
                mirrored=mirrored,
                scaled_sizes=scaled_sizes,
                image_size=image_size,
                stride=self.output_stride,
                out_stride=self.out_stride,
            )
        else:
            merged = torch.zeros(0, *(-(-side // self.out_stride) for side in image_size))
        cam = normalize_cams(merged).cpu().numpy()
        return {"cam": encode_cam(cam), "cam_height": cam.shape[1], "cam_width": cam.shape[2]}
