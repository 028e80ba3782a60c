"""Defines what an export format has to do.

A format makes each image's own files, and the image's part of the files that describe all images, such as COCO's one
JSON. These parts are gathered and joined at the end, one image at a time, so no format ever holds a whole dataset.

Conventions: masks hold class ids, 0 background, 1..C the classes, 255 ignore. Files are named after the `image_id`.
Rows without a split go to the split "train", because most tools require a split.
"""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.containers.place import content_type, split_place
from raypipe.data.names import file_stem
from raypipe.formats.listing import IMAGE_SUFFIXES
from raypipe.schema import IGNORE
from raypipe.uri import suffix_of

NO_SPLIT = "train"
"""The split of rows that have none."""

IMAGE_LIST = "images.csv"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of an export. Each format uses those that make sense for it."""

    instances: bool = True
    """COCO: write one annotation for each connected component instead of one for each class."""
    min_area: int = 1
    """COCO and YOLO leave out components of fewer pixels."""
    tolerance: float = 0.0
    """YOLO leaves out corners that lie at most this many pixels off the simplified polygon."""
    copy_images: bool = False
    """Copy the image files unchanged; otherwise the export refers to their URIs."""


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """One image of an export."""

    image_id: str
    number: int
    """Position in the manifest, from 1."""
    image_uri: str
    split: str
    """Safe as a file's name."""

    @property
    def stem(self) -> str:
        """Name of the image's files, without ending."""
        return file_stem(self.image_id)

    @property
    def image_name(self) -> str:
        """Name of the image's file."""
        return self.stem + image_suffix(self.image_uri)

    @property
    def image_path(self) -> str:
        """Where other tools find the image: its path or URI. In a container they don't, so that it is a file's name."""
        return self.image_uri if split_place(self.image_uri)[1] is None else self.image_name


@dataclass(frozen=True, kw_only=True)
class MaskRow(ExportRow):
    """An image with its mask, which a format renders."""

    mask: NDArray[np.uint8]
    """(height, width): class ids, 255 ignore."""
    confidence: NDArray[np.uint8] | None
    """(height, width), 255 is 1; None for true masks."""
    image: bytes | None = None
    """Content of the image file if `copy_images`, else None."""

    @property
    def class_ids(self) -> list[int]:
        """The class ids in the mask, ascending, without background and ignore."""
        return [int(value) for value in np.unique(self.mask) if 0 < value < IGNORE]

    def mean_confidence(self, region: NDArray[np.bool_]) -> float | None:
        """Returns the mean confidence of a region (H, W) in 0..1, or None for true masks and empty regions."""
        if self.confidence is None or not region.any():
            return None
        return round(float(self.confidence[region].mean()) / 255, 4)


class Item(NamedTuple):
    """One image's part of a file that describes many images; `kind` is the format's own name for it."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Rendered:
    """What a format makes of one image."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content of the image's own files, by path below the export's folder."""
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ExportedRow(ExportRow):
    """An image after all images were rendered."""

    items: Sequence[Item]

    def parts(self, kind: str) -> Iterator[bytes]:
        """Returns the data of the items of one kind."""
        return (item.data for item in self.items if item.kind == kind)


Rows = Callable[[], Iterator[ExportedRow]]
"""Starts a new pass over all images, which yields one at a time."""


class Format(ABC):
    """Base class of the export formats.

    Args:
        classes: class names in class-id order, without background.
        options: how masks are written.
    """

    any_size: ClassVar[bool] = False
    """Takes masks that have more pixels than an image may have that isn't read by windows."""

    def __init__(self, classes: Sequence[str], options: Options | None = None) -> None:
        self.classes = tuple(classes)
        self.options = options or Options()

    def image_folder(self, split: str) -> str | None:  # noqa: ARG002 - for formats that copy images
        """Returns the folder for copied images; None if the format keeps them elsewhere or never copies them."""
        return None

    @abstractmethod
    def render(self, row: MaskRow) -> Rendered:
        """Returns the image's files and items, without the image itself."""

    @abstractmethod
    def finish(self, rows: Rows, out: str) -> None:
        """Writes the files that describe all images, below the URI `out`."""


def image_suffix(image_uri: str) -> str:
    """Returns the ending of an image file, or ".jpg" if its URI has no known one."""
    content = content_type(image_uri)
    found = f".{content}".lower() if content else suffix_of(image_uri)
    return found if found in IMAGE_SUFFIXES else ".jpg"


def write_text(out: str, path: str, text: str) -> None:
    """Writes a text file below the export's folder."""
    storage.write_bytes_atomic(storage.join(out, path), text.encode())


def write_lists(rows: Rows, out: str, *, path: str, line: Callable[[ExportedRow], str]) -> None:
    """Writes one file for each split, with one line for each image.

    Args:
        rows: all images.
        out: the export's folder.
        path: of the files below `out`; `{split}` stands for the split.
        line: returns an image's line.
    """
    with SplitFiles(out, path) as files:
        for row in rows():
            files[row.split].write(f"{line(row)}\n".encode())


def write_image_list(format_: Format, rows: Rows, out: str) -> None:
    """Writes `images.csv`: where each image is now, and where the format expects it."""
    with storage.writing(storage.join(out, IMAGE_LIST)) as file:
        file.write(b"image_id,file,image_uri\r\n")
        for row in rows():
            text = io.StringIO()
            csv.writer(text).writerow(
                (row.image_id, f"{format_.image_folder(row.split)}/{row.image_name}", row.image_uri)
            )
            file.write(text.getvalue().encode())


class SplitFiles(ExitStack):
    """Opens one file for each split on first use; the files appear when all of them are complete."""

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
