"""YOLO's segmentation labels: a text file an image, a polygon a line.

https://docs.ultralytics.com/datasets/segment/. A line is `class x y x y …`, classes from 0 without background, corners
as shares of width and height. A line is a connected component (8 neighbours).

- A polygon of YOLO's has no holes: each hole is cut open to the outline by a line of width 0. Filled by the even-odd
  rule, as OpenCV's `fillPoly` does, the hole stays open.
- With `tolerance` 0 the polygons run along the pixels' sides: the pixels whose middles they hold are the mask's,
  exactly. A tolerance leaves out corners that lie at most so many pixels off.
- YOLO has no ignored pixels: no polygon covers them, so they count as background. Nor does it have confidence.
"""

import json

import numpy as np

from raypipe.formats.base import Format, MaskRow, Rendered, Rows, write_image_list, write_lists, write_text
from raypipe.formats.components import Region, components
from raypipe.formats.yolo.polygons import cut_open, simplify, trace_rings

_DIGITS = 7
"""Of a share: a hundredth of a pixel in an image of 100,000."""


class Yolo(Format):
    """`labels/<split>/`, `<split>.txt`, `data.yaml`; images, if exported, in `images/<split>/`, where YOLO looks."""

    def image_folder(self, split: str) -> str | None:
        """A folder a split; YOLO finds labels by exchanging `images` for `labels` in an image's path."""
        return f"images/{split}"

    def render(self, row: MaskRow) -> Rendered:
        """The polygons; an image without any has an empty file."""
        found = components(row.mask, row.class_ids, min_area=self.options.min_area)
        lines = [self._line(region, row.mask.shape) for region in found]
        return Rendered(files={f"labels/{row.split}/{row.stem}.txt": "".join(lines).encode()})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes lists and names; where images aren't copied, they have to be fetched by `images.csv` first."""
        write_lists(
            rows, out, path="{split}.txt", line=lambda row: f"./{self.image_folder(row.split)}/{row.image_name}"
        )
        write_image_list(self, rows, out)
        splits = sorted({row.split for row in rows()})
        lines = [f"{json.dumps(split)}: {json.dumps(f'{split}.txt')}" for split in splits]
        # YOLO doesn't start without both.
        lines += [f"{split}: {json.dumps(f'{splits[0]}.txt')}" for split in ("train", "val") if split not in splits]
        lines += ["names:"] + [f"  {number}: {json.dumps(name)}" for number, name in enumerate(self.classes)]
        write_text(out, "data.yaml", "\n".join([*lines, ""]))

    def _line(self, region: Region, shape: tuple[int, ...]) -> str:
        rings = [simplify(ring, self.options.tolerance) for ring in trace_rings(region.pixels)]
        corners = (cut_open(rings) + np.array([region.left, region.top])) / np.array([shape[1], shape[0]])
        shares = " ".join(f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".") for share in np.ravel(corners))
        return f"{region.class_id - 1} {shares}\n"
