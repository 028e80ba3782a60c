"""Trimaps where the networks run, so that no CPU has to refine them; see `raypipe.stages.trimaps`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.config import Trimaps
from raypipe.networks.cuda import to_device
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage
from raypipe.stages.refine_on_device import GPU_SETTING, refine_on_device
from raypipe.stages.trimaps import MakeTrimaps, Seed, seed_of


@dataclass(kw_only=True)
class MakeTrimapsOnDevice(JointStage[Seed]):
    """As `MakeTrimaps`; a trimap has so few cells that its PNG is made here, too. Images are refined one by one."""

    splits: tuple[str, ...] | None
    """Splits that are trained on; images of others get no trimap. None makes one of every image."""
    trimaps: Trimaps
    cam_stride: int
    """Pixels per cell of the maps."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = MakeTrimaps.reads
    writes = MakeTrimaps.writes
    gpu_setting = GPU_SETTING

    def setup(self, device: str) -> None:
        """Keeps where to compute."""
        self.device = torch.device(device)

    def prepare(self, row: Row) -> Seed:
        """Reduces the image and decodes the maps."""
        stride = self.trimaps.crf_stride
        return seed_of(row, self.splits, stride=stride, cam_stride=self.cam_stride, max_side=self.max_side)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[Seed]) -> list[Row]:
        """Makes one trimap after another; null where none is wanted."""
        return [{"trimap": None} if seed.pixels is None else self._make(seed, seed.pixels) for seed in prepared]

    def _make(self, seed: Seed, pixels: NDArray[np.uint8]) -> Row:
        stride = self.trimaps.crf_stride
        stacks = seed.stacks(self.trimaps, size=(pixels.shape[0], pixels.shape[1]), device=self.device)
        image = to_device(torch.from_numpy(pixels), self.device)
        low, high = refine_on_device(image, stacks, self.trimaps.refine, stride=stride).cpu().numpy()
        return seed.encode(low, high, stride=stride)
