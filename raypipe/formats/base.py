"""What a format is: it makes an image's own files, and its share of the files that all images stand in.

Shares are gathered and joined at the end one image at a time, so that no format ever holds a whole dataset.

Conventions: masks hold class ids, 0 background, 1..C the classes, 255 ignore. Files are named after the `image_id`.
Rows without a split are of the split "train", for most tools know no other way.
"""

import csv
import io
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.names import file_stem
from raypipe.formats.listing import IMAGE_SUFFIXES
from raypipe.schema import IGNORE

NO_SPLIT = "train"
"""Split of rows that have none."""

IMAGE_LIST = "images.csv"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How masks are written; each format takes what it has a use for."""

    instances: bool = True
    """COCO: one annotation a connected component; else one a class."""
    min_area: int = 1
    """COCO, YOLO: components of fewer pixels are left out."""
    tolerance: float = 0.0
    """YOLO: how far in pixels a polygon's corners that are left out may lie off it."""
    copy_images: bool = False
    """Image files are exported too, as they are; else each format names their URIs."""


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """An image's mask, as it is exported."""

    image_id: str
    number: int
    """Its place in the manifest, from 1."""
    image_uri: str
    split: str
    """Safe as a file's name."""
    mask: NDArray[np.uint8]
    """(height, width): class ids, 255 ignore."""
    confidence: NDArray[np.uint8] | None
    """(height, width), 255 is 1; None for true masks."""
    image: bytes | None = None
    """The image file's content, where it is exported too."""

    @property
    def stem(self) -> str:
        """Name of the image's files, without ending."""
        return file_stem(self.image_id)

    @property
    def image_name(self) -> str:
        """Name of the image's file."""
        return self.stem + image_suffix(self.image_uri)

    @property
    def class_ids(self) -> list[int]:
        """The classes in the mask, ascending; neither background nor ignore."""
        return [int(value) for value in np.unique(self.mask) if 0 < value < IGNORE]

    def mean_confidence(self, region: NDArray[np.bool_]) -> float | None:
        """Mean confidence of a region, 0..1; None for true masks and empty regions."""
        if self.confidence is None or not region.any():
            return None
        return round(float(self.confidence[region].mean()) / 255, 4)


class Item(NamedTuple):
    """An image's share of a file that many stand in."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Rendered:
    """What becomes of one image."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Its own files, by path below the export's folder."""
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ExportedRow:
    """One image when all are rendered."""

    image_id: str
    number: int
    split: str
    image_uri: str
    items: Sequence[Item]

    @property
    def stem(self) -> str:
        """Name of the image's files, without ending."""
        return file_stem(self.image_id)

    @property
    def image_name(self) -> str:
        """Name of the image's file."""
        return self.stem + image_suffix(self.image_uri)

    def parts(self, kind: str) -> Iterator[bytes]:
        """The items of a kind."""
        return (item.data for item in self.items if item.kind == kind)


Rows = Callable[[], Iterator[ExportedRow]]
"""All images, one at a time, as often as they are asked for."""


class Format(ABC):
    """A format of masks.

    Args:
        classes: class names in class-id order, without background.
        options: how masks are written.
    """

    def __init__(self, classes: Sequence[str], options: Options | None = None) -> None:
        self.classes = tuple(classes)
        self.options = options or Options()

    @abstractmethod
    def image_folder(self, split: str) -> str | None:
        """Where images go that are exported too; None where the format holds them itself, or never."""

    @abstractmethod
    def render(self, row: MaskRow) -> Rendered:
        """An image's files and items, but for the image itself."""

    @abstractmethod
    def finish(self, rows: Rows, out: str) -> None:
        """Writes the files that all images stand in below the URI `out`."""


def image_suffix(image_uri: str) -> str:
    """Ending of an image file; ".jpg" where its URI says none."""
    suffix = posixpath.splitext(urlsplit(image_uri).path)[1].lower()
    return suffix if suffix in IMAGE_SUFFIXES else ".jpg"


def local_path(uri: str) -> str:
    """What libraries that know no `file://` take: the path of a local file, any other URI as it is."""
    return uri.removeprefix("file://")


def write_text(out: str, path: str, text: str) -> None:
    """Writes a small file."""
    storage.write_bytes_atomic(storage.join(out, path), text.encode())


def write_lists(rows: Rows, out: str, *, path: str, line: Callable[[ExportedRow], str]) -> None:
    """Writes a line an image into one file a split.

    Args:
        rows: all images.
        out: the export's folder.
        path: of the files, `{split}` for the split.
        line: of an image.
    """
    with SplitFiles(out, path) as files:
        for row in rows():
            files[row.split].write(f"{line(row)}\n".encode())


def write_image_list(format_: Format, rows: Rows, out: str) -> None:
    """Writes `images.csv`: where each image is, and where the format expects it."""
    with storage.writing(storage.join(out, IMAGE_LIST)) as file:
        file.write(b"image_id,file,image_uri\r\n")
        for row in rows():
            text = io.StringIO()
            csv.writer(text).writerow(
                (row.image_id, f"{format_.image_folder(row.split)}/{row.image_name}", row.image_uri)
            )
            file.write(text.getvalue().encode())


class SplitFiles(ExitStack):
    """One file a split, opened when it is first asked for; none is there before all are complete."""

    def __init__(self, out: str, path: str) -> None:
        super().__init__()
        self.out = out
        self.path = path
        self.files: dict[str, IO[bytes]] = {}

    def __getitem__(self, split: str) -> IO[bytes]:
        if split not in self.files:
            uri = storage.join(self.out, self.path.format(split=split))
            self.files[split] = self.enter_context(storage.writing(uri))
        return self.files[split]
