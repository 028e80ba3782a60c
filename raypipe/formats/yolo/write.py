"""Exports YOLO's segmentation labels: one text file for each image, one polygon on each line.

https://docs.ultralytics.com/datasets/segment/. A line is `class x y x y …`, with classes counted from 0
without background, and corners as shares of width and height. A line is a connected component (8 neighbours).

- ultralytics fills polygons by OpenCV's `fillPoly`, other readers by the pixels' middles. With `tolerance` 0 both get
  exactly the mask ([polygons.py](polygons.py)). A larger tolerance leaves out corners that lie at most that many pixels
  off.
- YOLO's polygons have no holes, so a line of width 0 joins each hole to the outline. Filled by the even-odd rule, as
  both do, the hole stays open.
- YOLO has no ignored pixels: no polygon covers them, so they count as background. The confidence isn't exported.
- ultralytics passes over images whose ending it doesn't know, such as GIF: they are written as PNG where images are
  copied; else the export is refused.
"""

from typing import Any

import numpy as np
import yaml

from raypipe.formats.base import ExportRow, Format, MaskRow, Rendered, Rows, write_text
from raypipe.formats.components import Region, components
from raypipe.formats.yolo.polygons import outline

_DIGITS = 8
"""Decimals of a share: those that a 32-bit float, as which shares are read, can hold."""


_RESERVED = ("path", "names", "nc", "channels", "download", "yaml_file", "kpt_shape", "flip_idx", "kpt_names")
"""What ultralytics takes for something else than a split in data.yaml."""


class Yolo(Format):
    """`labels/<split>/`, `data.yaml`; images, if exported, in `images/<split>/`, which `data.yaml` names.

    A list of images would name some that aren't there, where they aren't copied; of a folder YOLO takes what it holds.
    """

    images_inside = True
    readable = frozenset({".jpg", ".png", ".webp", ".tif", ".bmp", ".avif", ".jp2"})

    def image_folder(self, folder: str) -> str | None:
        """Returns a folder for each split; YOLO replaces `images` by `labels` in an image's path to find its labels."""
        return f"images/{folder}"

    def mask_file(self, row: ExportRow) -> str:
        """Returns the path of the polygons."""
        return f"labels/{row.folder}/{row.stem}.txt"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the file of polygons, which is empty for an image without any."""
        found = components(row.mask, row.class_ids, min_area=self.options.min_area)
        lines = [self._line(region, row.mask.shape) for region in found]
        return Rendered(files={self.mask_file(row): "".join(lines).encode()})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes `data.yaml`; images that weren't copied must be fetched by `images.csv` before YOLO starts."""
        folders = sorted({row.folder for row in rows()})
        content: dict[str, Any] = {name: self.image_folder(name) for name in folders if name not in _RESERVED}
        # YOLO doesn't start without the splits train and val.
        content |= {needed: self.image_folder(folders[0]) for needed in ("train", "val") if needed not in folders}
        content["names"] = dict(enumerate(self.classes))
        text = yaml.dump(content, Dumper=_Quoting, allow_unicode=True, sort_keys=False, width=float("inf"))
        write_text(out, "data.yaml", text)

    def _line(self, region: Region, shape: tuple[int, ...]) -> str:
        corners = outline(region.pixels, tolerance=self.options.tolerance) + np.array([region.left, region.top])
        corners /= np.array([shape[1], shape[0]])
        shares = " ".join(f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".") for share in np.ravel(corners))
        return f"{region.class_id - 1} {shares}\n"


class _Quoting(yaml.SafeDumper):
    """Quotes all texts: readers of YAML differ in what they take for a number, a date or a truth value."""


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
