"""The report of a large run: how long it takes, how much memory, how large the page is. No Ray, nothing is trained.

    python benchmarks/report_size.py --num-rows 1000 --num-rows 10000

A run of so many rows is made up: a manifest, shards of seeds and masks as the streams write them, quarantined rows, and
scores of a tenth of the images. All rows share a few pictures; their bytes are as many as real ones have, so 100,000
rows take about 3 GiB in the temporary folder. Each report is written by a process of its own.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from measure import machine, table, write_made_up, write_random_networks
from memory import peak, reset_peak, run_alone
from PIL import Image

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import encode_cam
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import open_manifest, write_manifest
from raypipe.data.rows import ONLY_PART
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.pages.report import write_report
from raypipe.pipelines.context import Context
from raypipe.pipelines.evaluate import MADE
from raypipe.pipelines.tally import IMAGE_SCORES, IMAGES
from raypipe.results import Score
from raypipe.schema import MASKS, QUARANTINE, SEEDS

HEIGHT, WIDTH = 180, 240
CLASSES = tuple(f"class {number:02}" for number in range(20))
ROWS_PER_SHARD = 32
NUM_PICTURES = 8


def make_run(folder: Path, num_rows: int) -> None:
    """Leaves a made-up run in a folder."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 255, (NUM_PICTURES, HEIGHT // 12, WIDTH // 12, 3), dtype=np.uint8)
    masks = (smooth[..., 0] // 86).repeat(12, 1).repeat(12, 2)  # class ids 0, 1, 2
    for number, picture in enumerate(smooth.repeat(12, 1).repeat(12, 2)):
        Image.fromarray(picture).save(folder / f"photo{number}.png")
        (folder / f"truth{number}.png").write_bytes(encode_png(masks[number]))
    manifest = Manifest.from_rows(
        (
            {
                "image_id": f"image {number:07}",
                "image_uri": str(folder / f"photo{number % NUM_PICTURES}.png"),
                "labels": [CLASSES[0], CLASSES[1], CLASSES[number % 18 + 2]],
                "split": "train",
                "mask_uri": str(folder / f"truth{number % NUM_PICTURES}.png") if number % 10 == 0 else None,
            }
            for number in range(num_rows)
        ),
        CLASSES,
    )
    write_manifest(manifest, str(folder / "manifest.parquet"))
    write_random_networks(str(folder), "tiny", CLASSES)
    # As hard to compress as a confidence is.
    confidences = [encode_png(rng.integers(0, 64, (HEIGHT, WIDTH), dtype=np.uint8)) for _ in masks]
    pngs = [encode_png(mask) for mask in masks]
    cam = encode_cam(rng.random((2, HEIGHT // 4, WIDTH // 4), dtype=np.float32))
    ids = manifest.table["image_id"].to_pylist()
    for start in range(0, num_rows, ROWS_PER_SHARD):
        some = range(start, min(num_rows, start + ROWS_PER_SHARD))
        good = [number for number in some if number % 100 != 99]
        bad = [
            {"image_id": ids[number], "stage": "DecodeImages", "reason": f"truncated after {number} bytes"}
            for number in some
            if number % 100 == 99
        ]
        common = {"height": HEIGHT, "width": WIDTH}
        seeds = {"class_ids": [1, 2], "cam": cam, "cam_height": HEIGHT // 4, "cam_width": WIDTH // 4, "trimap": b""}
        rows = [
            {
                "image_id": ids[number],
                **common,
                "class_ids": [0, 1, 2],
                "mask": pngs[number % NUM_PICTURES],
                "confidence": confidences[number % NUM_PICTURES],
                "areas": [0.4, 0.3, 0.3],
                "mean_confidences": [0.9, 0.8, 0.7],
                "walk_mask": pngs[(number + 1) % NUM_PICTURES],
                "predicted_iou": float(rng.random()),
            }
            for number in good
        ]
        write_made_up(str(folder / "masks"), SHARDS, rows, MASKS)
        seeded = [{"image_id": ids[number], **common, **seeds} for number in good]
        write_made_up(str(folder / "seeds"), SHARDS, seeded, SEEDS)
        write_made_up(str(folder / "masks"), QUARANTINED, bad, QUARANTINE)


def make_scores(folder: str, num_rows: int) -> list[Score]:
    """Scores of a tenth of the images, as an evaluation has them; those of single images go into a folder."""
    rng = np.random.default_rng(0)
    scored, stages = range(0, num_rows, 10), ("walk", "dcrf")
    rows = [
        {"image_id": f"image {number:07}", "stage": stage, "split": "train", "mean_iou": float(rng.random())}
        for stage in stages
        for number in scored
    ]
    images = Path(folder, IMAGES, MADE)
    images.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=IMAGE_SCORES), images / f"{ONLY_PART}.parquet")
    return [
        Score(
            stage=stage,
            split="train",
            num_images=len(scored),
            mean_iou=0.5,
            class_iou=dict.fromkeys(("background", *CLASSES), 0.5),
            post_processing="none",
            truth_digest="made up",
            num_unscored=0,
        )
        for stage in stages
    ]


def measure_report(folder: str, num_rows: int) -> tuple[float, float, float, int]:
    """Memory before the report and at its peak (MiB), seconds, and the page's bytes."""
    manifest = open_manifest(storage.join(folder, "manifest.parquet"))
    config = load_config(
        "", [f"manifest={storage.join(folder, 'manifest.parquet')}", f"out={folder}", "walk.affinity=rgb"]
    )
    seeds, masks, classifier, evaluation = (
        Artifact(storage.join(folder, name), "made up") for name in ("seeds", "masks", "classifier", "evaluation")
    )
    scores = make_scores(evaluation.uri, num_rows)
    before = reset_peak()
    started = time.monotonic()
    uri = write_report(
        Context(config, manifest),
        maps=classifier,
        seeds=seeds,
        masks=masks,
        segments=None,
        networks={"classifier": classifier},
        evaluation=evaluation,
        scores=scores,
        decisions=[],
        num_samples=6,
        resources="",
    )
    seconds = time.monotonic() - started
    return before, peak(), seconds, len(storage.read_bytes(uri))


def main(
    num_rows: Annotated[list[int], typer.Option(help="rows of a run; repeat for several")] = [1000, 10000],  # noqa: B006 - typer's way
) -> None:
    """Prints the table."""
    print(machine(), end="\n\n")
    rows = []
    for number in num_rows:
        with tempfile.TemporaryDirectory() as folder:
            make_run(Path(folder), number)
            before, highest, seconds, num_bytes = run_alone(measure_report, folder, number)
        rows.append((f"{number:,}", f"{before:.0f}", f"{highest:.0f}", f"{seconds:.1f}", f"{num_bytes / 2**20:.2f}"))
        print(rows[-1], flush=True)
    print("\n" + table(("rows", "memory before, MiB", "peak, MiB", "seconds", "page, MiB"), rows))


if __name__ == "__main__":
    typer.run(main)
