"""Exports mmsegmentation's folders: grey PNGs, by split.

Pixels are class ids with background as class 0 and 255 ignored, which is mmsegmentation's `ignore_index`: read them
with `reduce_zero_label=False`. With `reduce_zero_label=True` mmsegmentation turns 0 into 255 and lowers every other id
by one: background is then ignored in training, and the first name in `metainfo.json` must be removed. The confidence
isn't exported.

mmsegmentation finds a dataset's images by one ending, `img_suffix`, which `metainfo.json` names, too. Images of several
endings are written as PNG where they are copied, without loss; else the export is refused, since a list of URIs can't
say so.
"""

import json

from raypipe.data.images import encode_png
from raypipe.formats.base import LOSSLESS, ExportRow, Format, MaskRow, Rendered, Rows, write_lists, write_text
from raypipe.formats.palette import voc_colors


class Mmseg(Format):
    """`ann_dir/<split>/`, `splits/<split>.txt`, `metainfo.json`; images, if exported, in `img_dir/<split>/`."""

    images_inside = True
    one_suffix = True

    def image_folder(self, folder: str) -> str | None:
        """Returns one folder for each split."""
        return f"img_dir/{folder}"

    def mask_file(self, row: ExportRow) -> str:
        """Returns the PNG's path."""
        return f"ann_dir/{row.folder}/{row.stem}.png"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the mask's file."""
        return Rendered(files={self.mask_file(row): encode_png(row.mask)})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the lists of images, and the names and colours for a dataset's `metainfo`."""
        write_lists(rows, out, path="splits/{split}.txt", line=lambda row: row.stem)
        names = ["background", *self.classes]
        metainfo = {"classes": names, "palette": voc_colors()[: len(names)].tolist()}
        content = {
            "metainfo": metainfo,
            "img_suffix": self.options.suffix or LOSSLESS,
            "seg_map_suffix": ".png",
            "reduce_zero_label": False,
            "ignore_index": 255,
        }
        write_text(out, "metainfo.json", json.dumps(content, ensure_ascii=False) + "\n")
