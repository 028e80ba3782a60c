"""What it costs when cells aren't where they are taken for: true masks, pooled to a grid and read back.

    python benchmarks/geometry.py VOC_ROOT [--num-images 60]

An upper bound: the masks are perfect but for the grid, so that nothing else hides an offset.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from measure import table
from PIL import Image
from torch import Tensor

from raypipe.ops.cam import pool_to_grid, resize_cam, sample_cam
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.schema import IGNORE

NUM_CLASSES = 21


def read_back(truth: Tensor) -> dict[str, Tensor]:
    """Scores (K, H, W) of the true classes (K, H, W), after each way to a grid and back."""
    size = (truth.shape[-2], truth.shape[-1])
    found = {}
    for stride in (4, 8):
        grid = pool_to_grid(truth, stride=stride, count_padding=False)
        found[f"stride {stride}, stretched over the image"] = resize_cam(grid, size=size)
        found[f"stride {stride}, sampled where pixels are"] = sample_cam(grid, size=size, stride=stride)
    for pixels in (1, 4):
        moved = F.pad(truth[None], (pixels, 0, pixels, 0), mode="replicate")[0, :, : size[0], : size[1]]
        grid = pool_to_grid(moved, stride=8, count_padding=False)
        found[f"stride 8, cells that look {pixels} px up and left"] = sample_cam(grid, size=size, stride=8)
    return found


def main(voc_root: Path, num_images: int = 60) -> None:
    """Prints the table."""
    files = sorted((voc_root / "SegmentationClass").glob("*.png"))
    matrices: dict[str, np.ndarray] = {}
    for file in files[:: max(1, len(files) // num_images)][:num_images]:
        truth = np.array(Image.open(file))
        ids = np.array([each for each in np.unique(truth) if each != IGNORE])
        planes = torch.from_numpy(np.stack([truth == each for each in ids]).astype(np.float32))
        for way, scores in read_back(planes).items():
            labels = ids[scores.argmax(dim=0).numpy()]
            matrices[way] = matrices.get(way, 0) + confusion_matrix(truth, labels, num_classes=NUM_CLASSES)
    rows = [[way, f"{100 * mean_iou(matrix):.2f}"] for way, matrix in matrices.items()]
    print(table(["way", "mIoU"], rows))


if __name__ == "__main__":
    typer.run(main)
