"""Exports FiftyOne's ImageSegmentationDirectory.

    targets = {int(k): v for k, v in json.load(open("targets.json")).items()}
    dataset = fo.Dataset.from_dir("OUT/val", dataset_type=fo.types.ImageSegmentationDirectory)
    dataset.default_mask_targets = targets

https://docs.voxel51.com/user_guide/dataset_creation/datasets.html. `data.json` says where the images are, so they
needn't be copied. FiftyOne has no ignored pixels: 255 is one more target, called "ignore" in `targets.json`; leave it
out when you compare masks. The confidence isn't exported.
"""

import json

from raypipe.data.images import encode_png
from raypipe.formats.base import ExportRow, Format, MaskRow, Rendered, Rows, SplitFiles, write_text
from raypipe.schema import IGNORE


class FiftyOne(Format):
    """`<split>/labels/`, `<split>/data.json`, `targets.json`; images, if exported, in `<split>/data/`."""

    def image_folder(self, folder: str) -> str | None:
        """Returns one folder for each split."""
        return f"{folder}/data"

    def mask_file(self, row: ExportRow) -> str:
        """Returns the PNG's path."""
        return f"{row.folder}/labels/{row.stem}.png"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the mask's file."""
        return Rendered(files={self.mask_file(row): encode_png(row.mask)})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the images' places and the meaning of the masks' values."""
        if not self.options.copy_images:
            with SplitFiles(out, "{split}/data.json") as files:
                for row in rows():
                    begun = row.folder in files.files
                    entry = f"{json.dumps(row.stem)}: {json.dumps(self.image_path(row))}"
                    files[row.folder].write(((",\n" if begun else "{\n") + entry).encode())
                for file in files.files.values():
                    file.write(b"\n}\n")
        targets = dict(enumerate(("background", *self.classes))) | {IGNORE: "ignore"}
        write_text(out, "targets.json", json.dumps(targets, ensure_ascii=False, indent=1) + "\n")
