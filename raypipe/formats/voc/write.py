"""PASCAL VOC's folders: palette PNGs, lists of images by split.

Ignored pixels are 255, as in VOC's own masks, in the colour that VOC draws borders with. Masks hold no confidence.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.formats.base import Format, MaskRow, Rendered, Rows, write_image_list, write_lists, write_text
from raypipe.formats.palette import voc_colors


def encode_palette_png(mask: NDArray[np.uint8]) -> bytes:
    """A PNG whose pixels are the ids (H, W), shown in VOC's colours."""
    image = Image.fromarray(mask)
    image.putpalette(voc_colors().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class Voc(Format):
    """`SegmentationClass/`, `ImageSets/Segmentation/`, `labelmap.txt`; images, if exported, in `JPEGImages/`."""

    def image_folder(self, split: str) -> str | None:  # noqa: ARG002
        """VOC's."""
        return "JPEGImages"

    def render(self, row: MaskRow) -> Rendered:
        """The mask."""
        return Rendered(files={f"SegmentationClass/{row.stem}.png": encode_palette_png(row.mask)})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes lists, and names and colours of the classes."""
        write_lists(rows, out, path="ImageSets/Segmentation/{split}.txt", line=lambda row: row.stem)
        write_image_list(self, rows, out)
        names = ["background", *self.classes]
        colors = voc_colors()[: len(names)].tolist()
        lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(names, colors, strict=True)]
        write_text(out, "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
