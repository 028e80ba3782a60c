"""Dense CRF and PAMR where `refinement.device=gpu` puts them, against the CPU's: equal pixels, mIoU, time, memory.

    OMP_NUM_THREADS=1 python benchmarks/refinement.py VOC_ROOT [--num-images 40] [--num-runs 3] [--device cpu]

Scores are true masks of val, averaged on the walk's grid and blurred, with smooth noise on every map. They go through
the stages of a stream: RefineMasks against RefineOnDevice, whose labels RefineMasks takes up. The image is decoded
before.
"""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from measure import default_device, machine, table
from memory import added, run_alone
from numpy.typing import NDArray

from raypipe.data.arrays import encode_scores
from raypipe.data.images import decode_image, decode_mask
from raypipe.networks.cuda import arrange_cuda
from raypipe.ops.cam import pool_to_grid
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.schema import GRID_STRIDE, IGNORE
from raypipe.stages.base import Row
from raypipe.stages.refine import RefineMasks
from raypipe.stages.refine_on_device import RefineOnDevice

CASES: tuple[tuple[Literal["dcrf", "pamr"], float, float], ...] = (("dcrf", 1, 10), ("dcrf", 16, 4), ("pamr", 1, 10))
"""`refinement.method`, `power` and `compat_bilateral`: the defaults, those of `voc_mobilenet_v2`, and PAMR."""
NUM_CLASSES = 21
MAX_SIDE = 1024
BLUR = 5
"""Cells that a class's map is averaged over."""
NOISE = 0.6
"""Highest value of the noise on a map, whose own highest is 1."""
LARGEST = (1, 21, 768, 1024)
"""Stacks, labels, height and width of what memory is measured with."""


def make_row(root: Path, image_id: str) -> tuple[Row, NDArray[np.uint8]]:
    """The columns that refinement reads, pixels included, and the true mask."""
    content = (root / "JPEGImages" / f"{image_id}.jpg").read_bytes()
    truth = decode_mask((root / "SegmentationClass" / f"{image_id}.png").read_bytes())
    pixels = decode_image(content, max_side=MAX_SIDE).pixels
    present = [int(class_id) for class_id in np.unique(truth) if class_id not in (0, IGNORE)]
    known = torch.from_numpy(np.stack([truth == class_id for class_id in (0, *present)])).float()
    known[0] += torch.from_numpy(truth == IGNORE)
    grid = pool_to_grid(known, stride=GRID_STRIDE)
    blurred = F.avg_pool2d(grid[None], BLUR, stride=1, padding=BLUR // 2, count_include_pad=False)[0]
    rng = torch.Generator().manual_seed(int(image_id.replace("_", "")))
    coarse = torch.rand(1, len(grid), 5, 5, generator=rng)
    noise = F.interpolate(coarse, size=grid.shape[1:], mode="bilinear", align_corners=False)[0]
    scores = (blurred + NOISE * noise).numpy()
    return {
        "pixels": pixels,
        "class_ids": present,
        "scores": encode_scores(scores),
        "grid_height": scores.shape[1],
        "grid_width": scores.shape[2],
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }, truth


def timed(stage: Any, row: Row, num_runs: int) -> tuple[Row, float]:
    """What a stage makes of a row, and the median of its times in ms."""
    seconds = []
    for _ in range(num_runs):
        started = time.perf_counter()
        done = stage.process(row)
        seconds.append(time.perf_counter() - started)
    return done, 1000 * float(np.median(seconds))


def megabytes_added(method: Any, device: str) -> float:
    """Memory that refining the largest image adds at its peak, in MiB."""
    _, num_labels, height, width = LARGEST
    rng = np.random.default_rng(0)
    row = {
        "pixels": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "class_ids": list(range(1, num_labels)),
        "scores": encode_scores(rng.random((num_labels, height // 8, width // 8), dtype=np.float32)),
        "grid_height": height // 8,
        "grid_width": width // 8,
    }
    stage = RefineOnDevice(method=method, power=1.0, max_side=MAX_SIDE)
    stage.setup(device)
    if device == "cpu":
        return added(lambda: stage.process(row))
    torch.cuda.reset_peak_memory_stats()
    stage.process(row)
    return torch.cuda.max_memory_allocated() / 2**20


def main(
    root: Annotated[Path, typer.Argument(help="folder of a PASCAL VOC 2012 layout")],
    num_images: Annotated[int, typer.Option(min=1, help="of val")] = 40,
    num_runs: Annotated[int, typer.Option(min=1, help="timed calls of each, of which the median counts")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = default_device().type,
) -> None:
    """Prints both tables."""
    if device == "cuda":
        arrange_cuda()
    print(f"{machine()}; on {device}", end="\n\n")
    ids = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    rows = [make_row(root, image_id) for image_id in ids[:: max(1, len(ids) // num_images)][:num_images]]
    taking_up = RefineMasks(method="given", max_side=MAX_SIDE)
    lines = []
    for method, power, compat in CASES:
        options: dict[str, Any] = {"power": power, "compat_bilateral": compat, "max_side": MAX_SIDE}
        on_cpu, on_device = RefineMasks(method=method, **options), RefineOnDevice(method=method, **options)
        on_device.setup(device)
        on_device.process(rows[0][0])
        matrices = {name: np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64) for name in ("before", "cpu", "device")}
        equal, times = [], []
        for row, truth in rows:
            expected, cpu_time = timed(on_cpu, row, num_runs)
            refined, device_time = timed(on_device, row, num_runs)
            found, rest_time = timed(taking_up, row | refined, num_runs)
            masks = (expected["walk_array"], expected["labels_array"], found["labels_array"])
            for matrix, mask in zip(matrices.values(), masks, strict=True):
                matrix += confusion_matrix(truth, mask, num_classes=NUM_CLASSES)
            equal.append(100 * float((masks[1] == masks[2]).mean()))
            times.append((cpu_time, device_time, rest_time))
        scores = [f"{100 * mean_iou(matrix):.2f}" for matrix in matrices.values()]
        means = [f"{value:.0f}" for value in np.mean(times, axis=0)]
        name = method if method == "pamr" else f"{method}, power {power}, compat {compat}"
        lines.append((name, len(rows), f"{np.mean(equal):.3f} %", f"{min(equal):.3f} %", *scores, *means))
    header = ("method", "images", "equal pixels", "least", "mIoU before", "CPU's", "device's")
    print(table((*header, "CPU, ms", "device, ms", "taking up, ms"), lines), end="\n\n")
    size = f"{LARGEST[2]} x {LARGEST[3]}, {LARGEST[1]} labels"
    peaks = [(method, size, f"{run_alone(megabytes_added, method, device):.0f}") for method in ("dcrf", "pamr")]
    print(table(("method", "image of noise", "memory added, MiB"), peaks))


if __name__ == "__main__":
    typer.run(main)
