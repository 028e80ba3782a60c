"""Draws a contact strip: one PNG with a row of pictures for each sample, from the photograph to the mask."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from raypipe.reports.content import Sample
from raypipe.reports.pictures import draw_affinity, draw_cam, draw_mask, thumbnail

COLUMNS = ("photograph", "CAM", "affinity", "random walk", "refined", "segmenter", "truth")

_CELL_WIDTH = 200
_MAX_CELL_HEIGHT = 200
_GAP = 8
_HEADING = 26
_PAPER = (255, 255, 255)
_INK = (60, 64, 72)
_MISSING = (240, 241, 243)


def draw_columns(sample: Sample) -> dict[str, NDArray[np.uint8] | None]:
    """Draws a sample's pictures by the names in COLUMNS, all of one size; None stands for a missing one."""
    photo = thumbnail(sample.pixels)
    return {
        "photograph": photo,
        "CAM": draw_cam(photo, sample.cam, sample.class_ids),
        "affinity": None if sample.affinity is None else draw_affinity(photo, sample.affinity, sample.pixels.shape),
        "random walk": draw_mask(photo, sample.walk_mask),
        "refined": None if sample.mask is None else draw_mask(photo, sample.mask),
        "segmenter": None if sample.segment is None else draw_mask(photo, sample.segment),
        "truth": None if sample.truth is None else draw_mask(photo, sample.truth),
    }


def write_strip(samples: Sequence[Sample]) -> bytes:
    """Returns a PNG of samples (rows) by COLUMNS with small headings, without columns that no sample has.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("expected at least one sample for a strip, got none")
    drawn = [draw_columns(sample) for sample in samples]
    columns = [name for name in COLUMNS if any(pictures[name] is not None for pictures in drawn)]
    heights = [_cell_height(sample.pixels.shape) for sample in samples]
    size = (len(columns) * (_CELL_WIDTH + _GAP) + _GAP, _HEADING + sum(heights) + _GAP * len(heights))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, name in enumerate(columns):
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
