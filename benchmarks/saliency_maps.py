"""Saliency maps of a network against the objects of true masks, all classes one, and what they cost.

    OMP_NUM_THREADS=1 python benchmarks/saliency_maps.py VOC saliency.weights=isnet.onnx
        'saliency.preprocessing=[128,256]' [--num-images 32]

VOC is a folder in VOC's layout. Images are evenly spaced in a list. Maps are those of the pipeline's stages, 8 bits at
the image's size; pixels of 255 in a mask don't count. Seconds are those of the network's stage, resizing included,
images alone and one after the other, the first left out.
"""

import resource
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from measure import default_device, machine, table

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.stages.base import Row, Stage, run_stages
from raypipe.stages.decode import DecodeImages
from raypipe.stages.predict_saliency import EncodeSaliency, PredictSaliency


def scores(saliency: np.ndarray, truth: np.ndarray) -> tuple[int, int, float]:
    """Pixels in the intersection and in the union of objects and what is salient, and the mean absolute error."""
    known, objects = truth != 255, (truth > 0) & (truth != 255)
    salient = (saliency > 127) & known
    error = np.abs(saliency / 255 - objects)[known].mean()
    return int((salient & objects).sum()), int((salient | objects).sum()), float(error)


def predict(stages: list[Stage], image: bytes) -> tuple[Row, float]:
    """An image's row after three stages, and the seconds of the second, which runs the network."""
    decode, network, encode = stages
    (row,) = run_stages([decode], pa.table({"image": pa.array([image], pa.binary())})).to_pylist()
    started = time.perf_counter()
    (row,) = network.process_all([row | {"image": image}])
    seconds = time.perf_counter() - started
    (row,) = encode.process_all([row])
    return row, seconds


def main(
    root: Annotated[Path, typer.Argument(help="folder in VOC's layout")],
    options: Annotated[list[str], typer.Argument(help="of saliency, as in a config")],
    *,
    split: Annotated[str, typer.Option(help="list in ImageSets/Segmentation")] = "val",
    num_images: Annotated[int, typer.Option(min=2)] = 32,
) -> None:
    """Prints one line of a table."""
    config = load_config("", ["manifest=unused", "out=unused", *options])
    found = config.saliency
    assert found.weights is not None, "give saliency.weights"
    side = config.images.max_side
    network = PredictSaliency(
        weights=Artifact(found.weights, "given"), preprocessing=found.preprocessing, max_side=side
    )
    stages: list[Stage] = [DecodeImages(max_side=side), network, EncodeSaliency()]
    network.setup(default_device().type if network.kind == "device" else "cpu")
    names = (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
    names = [names[index] for index in np.linspace(0, len(names) - 1, num_images).round().astype(int)]
    seconds, measured = [], []
    for name in names:
        row, taken = predict(stages, (root / "JPEGImages" / f"{name}.jpg").read_bytes())
        truth = decode_mask((root / "SegmentationClass" / f"{name}.png").read_bytes())
        measured.append(scores(decode_mask(row["saliency"]), truth))
        seconds.append(taken)
    common, either, errors = (np.array(each) for each in zip(*measured, strict=True))
    ious = common / np.maximum(either, 1)
    cells = (
        " ".join(options).replace(found.weights, Path(found.weights).name),
        f"{network.network.height} x {network.network.width}",
        f"{ious.mean():.3f} ± {ious.std(ddof=1) / np.sqrt(len(ious)):.3f}",
        f"{common.sum() / either.sum():.3f}",
        f"{errors.mean():.3f}",
        f"{statistics.median(seconds[1:]):.2f} ({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f})",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}",
    )
    header = ("options", "input", "mean IoU ± standard error", "pooled IoU", "absolute error", "s an image", "GiB")
    print(f"{split}, n = {len(names)}; {machine()}\n\n{table(header, [cells])}")


if __name__ == "__main__":
    typer.run(main)
