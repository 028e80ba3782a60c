"""One picture of a finished run on this machine: a few images from photograph to truth, small enough for a README.

python benchmarks/strip.py RUN OUT.png [IMAGE_ID ...]

RUN is the `out` of a run whose manifest has true masks. Without ids it takes the images of several classes whose masks
score nearest the mean of the last split, one of each set of labels: neither the best nor the worst.
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, ImageOps

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.parts import StoredManifest, open_manifest
from raypipe.data.rows import Rows
from raypipe.pipelines.tally import read_image_scores
from raypipe.reports.cards import COLUMNS, draw_columns
from raypipe.reports.content import Sample
from raypipe.schema import MASKS, SEEDS, columns
from raypipe.streams.collect import outputs_of, with_ids

NUM_IMAGES = 3
NUM_COLOURS = 96
"""Of the palette, with which textures take a third of the bytes."""
WIDTH = 740
"""Pixels, about what GitHub shows of a README."""

_CELL_WIDTH = 200
_MAX_CELL_HEIGHT = 200
_GAP = 8
_HEADING = 26
_PAPER = (255, 255, 255)
_INK = (60, 64, 72)
_MISSING = (240, 241, 243)


def finished(run: Path, stage: str) -> Path:
    """The folder of a stage that was finished last."""
    marks = sorted(run.glob(f"{stage}/*/summary.json"), key=lambda path: path.stat().st_mtime)
    if not marks:
        raise SystemExit(f"{run} has no finished {stage}: give the `out` of a run that is through")
    return marks[-1].parent


def usual_images(run: Path, rows: dict[str, Any]) -> list[str]:
    """Images near the mean, of different labels."""
    folder = finished(run, "evaluate")
    last = json.loads((folder / "results.json").read_text())["scores"][-1]
    scores = {
        row["image_id"]: row["mean_iou"]
        for table in read_image_scores(str(folder), stage=last["stage"])
        for row in table.to_pylist()
        if row["split"] == last["split"]
    }
    mean = float(np.mean(list(scores.values())))
    chosen: dict[tuple[str, ...], str] = {}
    for image_id in sorted(scores, key=lambda image_id: abs(scores[image_id] - mean)):
        labels = tuple(rows[image_id]["labels"])
        if len(labels) > 1:
            chosen.setdefault(labels, image_id)
    return list(chosen.values())[:NUM_IMAGES]


def read_outputs(
    folder: Path, manifest: StoredManifest, image_ids: Sequence[str], wanted: pa.Schema
) -> dict[str, dict[str, Any]]:
    """Columns of some images in a stage's folder, by image id."""
    rows = with_ids(Rows(manifest.parts), image_ids)
    return {row["image_id"]: row for row in outputs_of(Artifact(str(folder), ""), rows, wanted).to_pylist()}


def read_sample(row: dict[str, Any], seed: dict[str, Any], mask: dict[str, Any]) -> Sample:
    """An image with its maps and masks."""
    final = decode_mask(mask["mask"])
    walk = None if mask["walk_mask"] is None else decode_mask(mask["walk_mask"])
    return Sample(
        image_id=row["image_id"],
        kind="random",
        labels=tuple(row["labels"]),
        pixels=decode_image(storage.read_bytes(row["image_uri"]), max_side=max(mask["height"], mask["width"])).pixels,
        class_ids=tuple(seed["class_ids"]),
        cam=decode_cam(seed["cam"], height=seed["cam_height"], width=seed["cam_width"]),
        affinity=None,
        walk_mask=final if walk is None else walk,
        mask=None if walk is None else final,
        segment=None,
        truth=decode_mask(storage.read_bytes(row["mask_uri"])),
        iou=None,
    )


def write_strip(samples: Sequence[Sample]) -> bytes:
    """Returns a PNG of samples (rows) by COLUMNS with small headings, without columns that no sample has.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("expected at least one sample for a strip, got none")
    drawn = [draw_columns(sample) for sample in samples]
    shown = [name for name in COLUMNS if any(pictures[name] is not None for pictures in drawn)]
    heights = [_cell_height(sample.pixels.shape) for sample in samples]
    size = (len(shown) * (_CELL_WIDTH + _GAP) + _GAP, _HEADING + sum(heights) + _GAP * len(heights))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, name in enumerate(shown):
        left, top = _GAP + place * (_CELL_WIDTH + _GAP), _HEADING
        pen.text((left + _CELL_WIDTH / 2, _HEADING / 2), name, fill=_INK, font=font, anchor="mm")
        for pictures, height in zip(drawn, heights, strict=True):
            picture = pictures[name]
            if picture is None:
                pen.rectangle((left, top, left + _CELL_WIDTH - 1, top + height - 1), fill=_MISSING)
            else:
                cell = ImageOps.fit(Image.fromarray(picture), (_CELL_WIDTH, height), Image.Resampling.LANCZOS)
                sheet.paste(cell, (left, top))
            top += height + _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _cell_height(shape: tuple[int, ...]) -> int:
    """Returns the height of a row's cells, by the image's proportions; an image that is taller than wide is cut."""
    return min(_MAX_CELL_HEIGHT, max(1, round(_CELL_WIDTH * shape[0] / shape[1])))


def shrink(png: bytes) -> bytes:
    """The picture with a palette, at WIDTH."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    size = (WIDTH, round(image.height * WIDTH / image.width))
    small = image.resize(size, Image.Resampling.LANCZOS).quantize(NUM_COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("image_ids", nargs="*")
    options = parser.parse_args()
    manifest = open_manifest(load_config((options.run / "config.yaml").read_text()).manifest)
    rows = {row["image_id"]: row for row in manifest.table.to_pylist()}
    image_ids = options.image_ids or usual_images(options.run, rows)
    seeds, masks = (
        read_outputs(finished(options.run, stage), manifest, image_ids, wanted)
        for stage, wanted in (
            ("seeds", columns(SEEDS, "image_id", "class_ids", "cam", "cam_height", "cam_width")),
            ("masks", columns(MASKS, "image_id", "height", "width", "mask", "walk_mask")),
        )
    )
    samples = [read_sample(rows[image_id], seeds[image_id], masks[image_id]) for image_id in image_ids]
    options.out.write_bytes(shrink(write_strip(samples)))
    print(f"{options.out}: {', '.join(image_ids)}, {options.out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
