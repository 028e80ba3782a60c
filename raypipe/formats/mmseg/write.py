"""mmsegmentation's folders: grey PNGs beside images, by split.

Pixels are class ids with background as class 0, and 255 ignored, which is mmsegmentation's `ignore_index`: read them
with `reduce_zero_label=False`. With `reduce_zero_label=True` mmsegmentation itself makes 0 to 255 and every other id
one less: then background is ignored in training, and the first name of `metainfo.json` must be left out. Masks hold no
confidence.
"""

import json

from raypipe.data.images import encode_png
from raypipe.formats.base import Format, MaskRow, Rendered, Rows, write_image_list, write_lists, write_text
from raypipe.formats.palette import voc_colors


class Mmseg(Format):
    """`ann_dir/<split>/`, `splits/<split>.txt`, `metainfo.json`; images, if exported, in `img_dir/<split>/`."""

    def image_folder(self, split: str) -> str | None:
        """A folder a split."""
        return f"img_dir/{split}"

    def render(self, row: MaskRow) -> Rendered:
        """The mask."""
        return Rendered(files={f"ann_dir/{row.split}/{row.stem}.png": encode_png(row.mask)})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes lists, and what a dataset's `metainfo` is made of."""
        write_lists(rows, out, path="splits/{split}.txt", line=lambda row: row.stem)
        write_image_list(self, rows, out)
        names = ["background", *self.classes]
        metainfo = {"classes": names, "palette": voc_colors()[: len(names)].tolist()}
        text = json.dumps({"metainfo": metainfo, "reduce_zero_label": False, "ignore_index": 255}, ensure_ascii=False)
        write_text(out, "metainfo.json", text + "\n")
