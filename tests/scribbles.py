"""An annotator's strokes, as docs/seeds.md has them: along a row and a column of each class, and of the background."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from raypipe.data.parts import read_manifest
from raypipe.uri import absolute


def write_scribbles(target: Path, manifest: str, *, folder: Path) -> None:
    """Writes strokes of the images that have true masks and labels; places in the manifest count from a folder."""
    found = read_manifest(str(folder / manifest))
    strokes: dict[str, dict[str, list[list[float]]]] = {}
    for row in found.table.to_pylist():
        if row["mask_uri"] and row["labels"]:
            mask = np.asarray(Image.open(absolute(row["mask_uri"])))
            names = {"background": 0, **{name: found.classes.index(name) + 1 for name in row["labels"]}}
            lines = {name: _longest_runs(mask == class_id) for name, class_id in names.items()}
            strokes[row["image_id"]] = {name: drawn for name, drawn in lines.items() if drawn}
    target.write_text(json.dumps(strokes))


def _longest_runs(region: np.ndarray) -> list[list[float]]:
    """The longest line of the region along a row and along a column, without its ends."""
    lines = []
    for transposed in (False, True):
        grid = region.T if transposed else region
        edges = np.diff(np.pad(grid.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        rows, begins = np.nonzero(edges == 1)
        lengths = np.nonzero(edges == -1)[1] - begins
        if not len(lengths) or lengths.max() < 5:
            continue
        best = int(lengths.argmax())
        first, last = begins[best] + lengths[best] * 0.2, begins[best] + lengths[best] * 0.8
        along, across = grid.shape[1], (rows[best] + 0.5) / grid.shape[0]
        ends = [(first / along, across), (last / along, across)]
        lines.append([value for x, y in ends for value in ((y, x) if transposed else (x, y))])
    return lines
