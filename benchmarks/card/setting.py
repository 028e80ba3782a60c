"""What the parts of a run share: the device, sizes, made-up images, networks with random weights, stages."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from measure import Timing, time_interleaved, write_random_networks
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.root import RunConfig
from raypipe.ops.affinity import pair_offsets
from raypipe.stages.base import Row, Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.stages.refine_on_device import RefineOnDevice

CLASSES = tuple(f"class {number}" for number in range(1, 21))
CLASS_IDS = [3, 8, 15]
"""Labels of every image."""

CONFIG = RunConfig(manifest="unused", out="unused")
"""The defaults, which are the papers'."""

Method = Literal["none", "pamr", "dcrf"]
Mode = Literal["deterministic", "throughput"]
MODES: dict[Mode, int | None] = {"deterministic": None, "throughput": 8_000_000}
"""Pixels of a pass, as `raypipe.pipelines.steps` says, which needs packages of the cluster."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is; the defaults are a card's."""

    checked: str = "resnet18"
    """Backbone of the checks, which a CPU has to compute as well."""
    measured: tuple[str, ...] = (
        *("timm/vit_small_patch14_dinov2", "timm/convnext_tiny", "timm/tf_efficientnet_lite2"),
        *("mobilenet_v2", "resnet50", "resnet38"),
    )
    """Backbones of the CAM pass, the most wanted last; those of timm aren't run where it is missing."""
    checked_more: tuple[str, ...] = ("timm/test_efficientnet", "timm/test_vit")
    """Backbones whose maps are checked, too, likewise."""
    main: str = "resnet50"
    """Backbone of the loop and of the trainings."""
    check_side: int = 160
    """Pixels of the checks' images."""
    side: int = 448
    """Pixels of the measured images."""
    too_large: int = 3072
    """Side of the image that doesn't fit into memory; the others have `side`."""
    image: tuple[int, int] = (375, 500)
    """Of the loop, as photographs of VOC are."""
    num_images: int = 64
    """Of the loop; a quarter where masks are refined."""
    grids: tuple[tuple[int, int], ...] = ((47, 63), (128, 128))
    batch: int = 16
    matrix: int = 8192
    """Rows of the matrices whose product shows the peak."""
    runs: int = 5
    steps: int = 10
    """Of each training."""


SMALL = Sizes(
    checked="tiny",
    measured=("tiny", "timm/test_vit"),
    checked_more=("timm/test_efficientnet",),
    main="tiny",
    check_side=48,
    side=48,
    too_large=96,
    image=(40, 56),
    num_images=4,
    grids=((5, 7),),
    batch=2,
    matrix=64,
    runs=1,
    steps=1,
)
"""For the run on a CPU, which tests this file."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run."""

    device: torch.device
    sizes: Sizes
    folder: Path
    """For checkpoints."""
    threads: ThreadPoolExecutor
    """That decode."""
    written: set[tuple[str, str]] = field(default_factory=set)

    @property
    def has_card(self) -> bool:
        """Whether the device is a card."""
        return self.device.type == "cuda"

    def checkpoint(self, task: Literal["classifier", "affinity"], backbone: str) -> Artifact:
        """A network with random weights."""
        folder = self.folder / backbone
        if (backbone, task) not in self.written:
            write_random_networks(str(folder), backbone, CLASSES, tasks=[task])
            self.written.add((backbone, task))
        return Artifact(str(folder / task), "random")

    def cams(self, backbone: str, mode: Mode, *, device: str | None = None, **changes: Any) -> ComputeCams:
        """The stage of the maps, set up on the run's device or another."""
        options = {"cams": CONFIG.cams, "max_side": 1024, "precision": "auto", **changes}
        stage = ComputeCams(classifier=self.checkpoint("classifier", backbone), pixels_per_pass=MODES[mode], **options)
        stage.setup(device or self.device.type)
        return stage

    def walk(self, backbone: str, mode: Mode, *, device: str | None = None, **changes: Any) -> PropagateCams:
        """The stage of the walk, likewise."""
        options = {"affinity": self.checkpoint("affinity", backbone), "max_side": 1024, "precision": "auto", **changes}
        stage = PropagateCams(
            alpha=CONFIG.walk.alpha,
            beta=CONFIG.walk.beta,
            num_steps=CONFIG.walk.num_steps,
            radius=CONFIG.affinity.radius,
            count_padding=CONFIG.walk.count_padding,
            cam_stride=CONFIG.cams.out_stride,
            pixels_per_pass=MODES[mode],
            **options,
        )
        stage.setup(device or self.device.type)
        return stage

    def stages(self, backbone: str, mode: Mode, method: Method) -> list[Stage]:
        """All stages from files to masks, set up; the device refines, too."""
        stages = [DecodeImages(max_side=1024), self.cams(backbone, mode), self.walk(backbone, mode)]
        if method == "none":
            return [*stages, RefineMasks(method="none", max_side=1024), EncodeMasks()]
        refine = RefineOnDevice(method=method, power=CONFIG.refinement.power, max_side=1024)
        refine.setup(self.device.type)
        return [*stages, refine, RefineMasks(method="given", max_side=1024), EncodeMasks()]

    def synchronize(self) -> None:
        """Waits until the device has nothing to do."""
        if self.has_card:
            torch.cuda.synchronize()

    def time(self, *calls: Any, runs: int | None = None) -> list[Timing]:
        """Times calls, with all that they leave to the device."""

        def ended(call: Any) -> None:
            call()
            self.synchronize()

        return time_interleaved([partial(ended, call) for call in calls], num_runs=runs or self.sizes.runs)


def photograph(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Pixels (height, width, 3): smooth areas and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-8, 9, smooth.shape, dtype=np.int16)
    pixels: NDArray[np.uint8] = (smooth + noise).clip(0, 255).astype(np.uint8)
    return pixels


def decoded_rows(sizes: Sequence[tuple[int, int]]) -> list[Row]:
    """Rows of images (height, width) that are decoded."""
    drawn = [photograph(seed, *size) for seed, size in enumerate(sizes)]
    return [{"image": b"", "pixels": pixels, "class_ids": CLASS_IDS} for pixels in drawn]


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def files(sizes: Sequence[tuple[int, int]]) -> pa.Table:
    """Rows of images (height, width) as files."""
    images = [jpeg(photograph(seed, *size)) for seed, size in enumerate(sizes)]
    return pa.table(
        {
            "image_id": [str(number) for number in range(len(images))],
            "image": pa.array(images, pa.binary()),
            "class_ids": pa.array([CLASS_IDS] * len(images), pa.list_(pa.uint8())),
        }
    )


def random_grids(sizes: Sequence[tuple[int, int]], *, num_maps: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """Maps (num_maps, h, w) in float64 and affinities of radius 5 from 0 to 1 of grids, some edges missing."""
    rng = torch.Generator().manual_seed(0)
    cams = [torch.rand(num_maps, *size, generator=rng, dtype=torch.float64) for size in sizes]
    affinities = [torch.rand(len(pair_offsets(5)), *size, generator=rng) for size in sizes]
    return cams, [edges * (torch.rand(edges.shape, generator=rng) < 0.8) for edges in affinities]
