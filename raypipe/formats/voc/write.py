"""Exports PASCAL VOC's folders: palette PNGs, and lists of images by split.

Ignored pixels are 255, as in VOC's own masks, in the colour in which VOC draws borders. The confidence isn't exported.

VOC's readers append one ending to the ids of its lists. Images of several endings are written as PNG where they are
copied, without loss; else the export is refused.
"""

from raypipe.data.images import encode_png
from raypipe.formats.base import ExportRow, Format, MaskRow, Rendered, Rows, write_lists, write_text
from raypipe.formats.labelmap import write_labelmap
from raypipe.formats.palette import voc_colors


class Voc(Format):
    """`SegmentationClass/`, `ImageSets/Segmentation/`, `labelmap.txt`; images, if exported, in `JPEGImages/`."""

    images_inside = True
    one_suffix = True

    def image_folder(self, folder: str) -> str | None:  # noqa: ARG002
        """Returns VOC's one folder for all splits."""
        return "JPEGImages"

    def mask_file(self, row: ExportRow) -> str:
        """Returns the PNG's path."""
        return f"SegmentationClass/{row.stem}.png"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the mask's file."""
        return Rendered(files={self.mask_file(row): encode_png(row.mask, palette=voc_colors())})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the lists of images, and the classes' names and colours."""
        write_lists(rows, out, path="ImageSets/Segmentation/{split}.txt", line=lambda row: row.stem)
        write_text(out, "labelmap.txt", write_labelmap(self.classes, voc_colors().tolist()))
