"""True masks in the place of computed ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from raypipe import storage
from raypipe.config import Images
from raypipe.data.images import encode_png, read_shape
from raypipe.data.scenes import Scene, find_scenes
from raypipe.data.truth import as_shown, check_truth
from raypipe.schema import MASKS, columns
from raypipe.stages.base import Row, Stage


@dataclass(kw_only=True)
class LoadTrueMasks(Stage):
    """The true mask's file as it is, with its size and without confidence; turned as its image is, where it isn't yet.

    An image that isn't there says nothing against its mask.
    """

    num_classes: int
    """With background."""

    windows: Images | None = None
    """How TIFF files are read by windows; None reads every image as a whole."""

    reads = ("image_uri", "mask_uri")
    writes = columns(MASKS, "height", "width", "mask", "confidence")
    kind = "fetch"

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches all files of all rows at once: from an object store, waiting takes most of the time."""
        sound = [row for row in rows if row.get("error_stage") is None]
        wanted = {row["mask_uri"] for row in sound}
        images = {row["image_uri"] for row in sound if row["image_uri"] and "image" not in row}
        scenes = {} if self.windows is None else find_scenes(images, self.windows)
        contents: dict[str, bytes | Exception | Scene] = {**storage.read_many((wanted | images) - scenes.keys())}
        return super().process_all([row | {"contents": contents | scenes} for row in rows])

    def process(self, row: Row) -> Row:
        """Checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255, or the image has another size.
            OSError: if the mask or the image can't be fetched.
        """
        contents = row.pop("contents")
        data = _content(contents[row["mask_uri"]])
        shown = mask = check_truth(data, num_classes=self.num_classes)
        image = row["image"] if "image" in row else contents.get(row["image_uri"])
        scene = row.get("scene") or image
        if isinstance(scene, Scene | dict):  # such a TIFF is never turned
            known = {"height": scene.height, "width": scene.width} if isinstance(scene, Scene) else scene
            if mask.shape != (size := (known["height"], known["width"])):
                raise ValueError(f"the true mask is {mask.shape} (height, width), the image {size}")
        elif image is not None and not isinstance(image, FileNotFoundError):
            content = _content(image)
            height, width, _ = read_shape(content)
            shown = as_shown(mask, size=(height, width), image=lambda: content)
            data = data if shown is mask else encode_png(shown)
        return {"height": shown.shape[0], "width": shown.shape[1], "mask": data, "confidence": None}


def _content(found: bytes | Exception) -> bytes:
    if isinstance(found, Exception):
        raise found
    return found
