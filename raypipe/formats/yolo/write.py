"""Exports YOLO's segmentation labels: one text file for each image, one polygon on each line.

https://docs.ultralytics.com/datasets/segment/. A line is `class x y x y …`, with classes counted from 0
without background, and corners as shares of width and height. A line is a connected component (8 neighbours).

- ultralytics fills polygons by OpenCV's `fillPoly`, other readers by the pixels' middles. With `tolerance` 0 both get
  exactly the mask ([polygons.py](polygons.py)). A larger tolerance leaves out corners that lie at most that many pixels
  off.
- YOLO's polygons have no holes, so a line of width 0 joins each hole to the outline. Filled by the even-odd rule, as
  both do, the hole stays open.
- YOLO has no ignored pixels: no polygon covers them, so they count as background. The confidence isn't exported.
"""

import json

import numpy as np

from raypipe.formats.base import Format, MaskRow, Rendered, Rows, write_image_list, write_lists, write_text
from raypipe.formats.components import Region, components
from raypipe.formats.yolo.polygons import outline

_DIGITS = 8
"""Decimals of a share: those that a 32-bit float, as which shares are read, can hold."""


class Yolo(Format):
    """`labels/<split>/`, `<split>.txt`, `data.yaml`; images, if exported, in `images/<split>/`, where YOLO looks."""

    def image_folder(self, split: str) -> str | None:
        """Returns a folder for each split; YOLO replaces `images` by `labels` in an image's path to find its labels."""
        return f"images/{split}"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the file of polygons, which is empty for an image without any."""
        found = components(row.mask, row.class_ids, min_area=self.options.min_area)
        lines = [self._line(region, row.mask.shape) for region in found]
        return Rendered(files={f"labels/{row.split}/{row.stem}.txt": "".join(lines).encode()})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes lists and names; images that weren't copied must be fetched by `images.csv` before YOLO starts."""
        write_lists(
            rows, out, path="{split}.txt", line=lambda row: f"./{self.image_folder(row.split)}/{row.image_name}"
        )
        write_image_list(self, rows, out)
        splits = sorted({row.split for row in rows()})
        lines = [f"{json.dumps(split)}: {json.dumps(f'{split}.txt')}" for split in splits]
        # YOLO doesn't start without the splits train and val.
        lines += [f"{split}: {json.dumps(f'{splits[0]}.txt')}" for split in ("train", "val") if split not in splits]
        lines += ["names:"] + [f"  {number}: {json.dumps(name)}" for number, name in enumerate(self.classes)]
        write_text(out, "data.yaml", "\n".join([*lines, ""]))

    def _line(self, region: Region, shape: tuple[int, ...]) -> str:
        corners = outline(region.pixels, tolerance=self.options.tolerance) + np.array([region.left, region.top])
        corners /= np.array([shape[1], shape[0]])
        shares = " ".join(f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".") for share in np.ravel(corners))
        return f"{region.class_id - 1} {shares}\n"
