"""Fetches and decodes images of which some are read by windows; see `raypipe.data.scenes`."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from raypipe import storage
from raypipe.config import Images
from raypipe.data.images import decode_image
from raypipe.data.scenes import Scene, find_scenes, open_scene
from raypipe.progress import tick
from raypipe.stages.base import Row, Stage
from raypipe.stages.decode import DecodeImages
from raypipe.stages.fetch import FetchImages

SCENE = pa.struct(
    {"height": pa.int32(), "width": pa.int32(), "tiled": pa.bool_(), "limits": pa.list_(pa.list_(pa.float64()))}
)
"""What is known of an image that is read by windows: its size, whether it is worked on in tiles, and the values of each
band that become 0 and 255."""


@dataclass(kw_only=True)
class FetchScenes(FetchImages):
    """As `FetchImages`; of what is read by windows `image` is a reduced view, as a PNG, which `scene` describes.

    Stages that work on tiles read them from the image's URI. All others see the view.
    """

    images: Images

    writes = pa.schema([*FetchImages.writes, pa.field("scene", SCENE)])

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Looks at the beginnings of all files, and fetches those that are read as a whole."""
        wanted = {row["image_uri"] for row in rows if row.get("error_stage") is None and row["image_uri"]}
        found: dict[str, Scene | Exception | bytes] = {**find_scenes(wanted, self.images)}
        found |= storage.read_many(wanted - found.keys())
        return Stage.process_all(self, [row | {"content": found.get(row["image_uri"])} for row in rows])

    def process(self, row: Row) -> Row:
        """Checks one image's labels and header; of what is read by windows all is read for the view.

        Raises:
            ValueError: as of `FetchImages`; or a TIFF that is damaged or can't be read by windows.
            OSError: if the image can't be fetched.
        """
        scene = row["content"]
        if not isinstance(scene, Scene):
            return super().process(row) | {"scene": None}
        class_ids = self.labels_of(row)
        row.pop("content")
        buffer = io.BytesIO()
        Image.fromarray(scene.reduced(self.images.max_side)).save(buffer, format="PNG", compress_level=1)
        tick()
        known = {"height": scene.height, "width": scene.width, "tiled": scene.tiled, "limits": scene.limits}
        return {"image": buffer.getvalue(), "class_ids": class_ids, "scene": known}


@dataclass(kw_only=True)
class DecodeScenes(DecodeImages):
    """As `DecodeImages`; the working size of what is worked on in tiles is its own, and it leaves no pixels."""

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override] # of the class above they are known sooner
        """The image, and whether it is a view."""
        return "image", "scene"

    def process(self, row: Row) -> Row:
        """Decodes one image, or the view that stands for it."""
        scene = row["scene"]
        if scene is None:
            return super().process(row)
        size = {"original_height": scene["height"], "original_width": scene["width"]}
        if scene["tiled"]:
            return {"pixels": None, "height": scene["height"], "width": scene["width"], **size}
        pixels = decode_image(row["image"], max_side=self.max_side).pixels
        return {"pixels": pixels, "height": pixels.shape[0], "width": pixels.shape[1], **size}


def is_tiled(row: Row) -> bool:
    """Whether a row's image is worked on in tiles."""
    return row["scene"] is not None and row["scene"]["tiled"]


def scene_of(row: Row, images: Images) -> Scene:
    """Opens the image of a row that is worked on in tiles.

    Raises:
        ValueError: the file was exchanged for one of another size.
    """
    known = row["scene"]
    scene = open_scene(row["image_uri"], images, limits=tuple((low, high) for low, high in known["limits"]))
    if scene is None or (scene.height, scene.width) != (known["height"], known["width"]):
        raise ValueError(
            f"the image isn't the one of {known['height']} x {known['width']} pixels that it was: run again"
        )
    return scene
