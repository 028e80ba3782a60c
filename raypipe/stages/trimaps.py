"""Trimaps: what is surely an object or surely background; affinity labels are made of it (AffinityNet §3.2)."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raypipe.config import Trimaps
from raypipe.data.arrays import decode_cam
from raypipe.data.images import encode_png
from raypipe.networks.cuda import to_device
from raypipe.ops.cam import sample_cam, stack_background
from raypipe.ops.trimap import hide_unknown, make_trimap
from raypipe.ops.unknown import known, sample_known
from raypipe.schema import GRID_STRIDE, SEEDS, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.decode import pixels_of
from raypipe.stages.refine import refine


@dataclass(frozen=True)
class Seed:
    """What a trimap is made of; without pixels none is wanted."""

    pixels: NDArray[np.uint8] | None
    """(H, W, 3), reduced by the stride at which maps are refined."""
    cam: Tensor
    """(K, h, w), NaN where unknown."""
    class_ids: NDArray[np.uint8]
    cell: float
    """Such reduced pixels per cell of the maps."""

    def stacks(self, trimaps: Trimaps, *, size: tuple[int, int], device: torch.device) -> Tensor:
        """Background and maps (2, 1 + K, H, W) of that size, with the strong background and with the weak one."""
        cam = to_device(self.cam, device)
        sample = sample_known if self.is_partial else sample_cam
        full = sample(cam, size=size, stride=self.cell)
        return torch.stack([stack_background(full, alpha=alpha) for alpha in (trimaps.alpha_low, trimaps.alpha_high)])

    @property
    def is_partial(self) -> bool:
        """Whether something is unknown."""
        return bool(self.cam.isnan().any())  # on the CPU, where the maps come from

    def encode(self, low: NDArray[np.float32], high: NDArray[np.float32], *, stride: int) -> Row:
        """The trimap's column, of both stacks refined; undecided where the maps are unknown."""
        step = GRID_STRIDE // stride
        trimap = make_trimap(low, high, self.class_ids, stride=step)
        if self.is_partial:
            seen = known(sample_known(self.cam, size=(low.shape[1], low.shape[2]), stride=self.cell))
            trimap = hide_unknown(trimap, seen, self.class_ids, stride=step)
        return {"trimap": encode_png(trimap)}


def seed_of(row: Row, splits: Collection[str] | None, *, stride: int, cam_stride: int, max_side: int) -> Seed:
    """Decodes what a trimap is made of.

    Args:
        row: with image and maps.
        splits: those that want trimaps; None wants all.
        stride: pixels of the image a pixel of the result.
        cam_stride: pixels of the image a cell of the maps.
        max_side: longer images are reduced to this long side, in pixels.

    Raises:
        ImageError: if the image can't be decoded.
    """
    pixels = None
    if splits is None or row["split"] in splits:
        pixels = np.array(Image.fromarray(pixels_of(row, max_side=max_side)).reduce(stride))
    cam = decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])
    return Seed(pixels, torch.from_numpy(cam), np.asarray(row["class_ids"], dtype=np.uint8), cam_stride / stride)


@dataclass(kw_only=True)
class MakeTrimaps(Stage):
    """Trimap (ceil(H/8), ceil(W/8)) of an image as a PNG: class ids, 0 background, 255 unsure.

    The maps and the background score are refined twice, under a weak background (`alpha_high`) and under a strong one
    (`alpha_low`); what is an object under both is taken for an object, what is background under both for background.
    """

    splits: tuple[str, ...] | None
    """Splits that are trained on; images of others get no trimap. None makes one of every image."""
    trimaps: Trimaps
    cam_stride: int
    """Pixels per cell of the maps."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image", "split", "class_ids", "cam", "cam_height", "cam_width")
    writes = columns(SEEDS, "trimap")

    def process(self, row: Row) -> Row:
        """Makes one image's trimap; null where its split isn't trained on."""
        stride = self.trimaps.crf_stride
        seed = seed_of(row, self.splits, stride=stride, cam_stride=self.cam_stride, max_side=self.max_side)
        if seed.pixels is None:
            return {"trimap": None}
        size = (seed.pixels.shape[0], seed.pixels.shape[1])
        stacks = seed.stacks(self.trimaps, size=size, device=torch.device("cpu")).numpy()
        low, high = refine(seed.pixels, list(stacks), self.trimaps.refine, stride=stride)
        return seed.encode(low, high, stride=stride)
