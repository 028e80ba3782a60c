"""Exports PASCAL VOC's folders: palette PNGs, and lists of images by split.

Ignored pixels are 255, as in VOC's own masks, in the colour in which VOC draws borders. The confidence isn't exported.
"""

from raypipe.data.images import encode_png
from raypipe.formats.base import Format, MaskRow, Rendered, Rows, write_image_list, write_lists, write_text
from raypipe.formats.palette import voc_colors


class Voc(Format):
    """`SegmentationClass/`, `ImageSets/Segmentation/`, `labelmap.txt`; images, if exported, in `JPEGImages/`."""

    def image_folder(self, split: str) -> str | None:  # noqa: ARG002
        """Returns VOC's one folder for all splits."""
        return "JPEGImages"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the mask's file."""
        return Rendered(files={f"SegmentationClass/{row.stem}.png": encode_png(row.mask, palette=voc_colors())})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the lists of images, and the classes' names and colours."""
        write_lists(rows, out, path="ImageSets/Segmentation/{split}.txt", line=lambda row: row.stem)
        write_image_list(self, rows, out)
        names = ["background", *self.classes]
        colors = voc_colors()[: len(names)].tolist()
        lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(names, colors, strict=True)]
        write_text(out, "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
