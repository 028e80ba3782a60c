"""Defines what an export format has to do.

A format makes each image's own files, and the image's part of the files that describe all images, such as COCO's one
JSON. These parts are gathered and joined at the end, one image at a time, so no format ever holds a whole dataset.

Conventions: masks hold class ids, 0 background, 1..C the classes, 255 ignore. Files are named after the `image_id`.
Rows without a split go to the split "train", because most tools require a split.

Every export can be imported again: what a tool's own files don't hold (ids of any form, labels, the splits' own names)
stands in `images.csv`, or in fields that the tool passes over.
"""

import csv
import io
import json
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
IMAGE_LIST_COLUMNS = ("image_id", "file", "image_uri", "split", "labels", "mask", "height", "width", "number")

_SAME_SUFFIX = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
"""Endings that say the same, of which many tools know the second one only."""

LOSSLESS = ".png"
"""What images are converted to where a tool doesn't read their own kind."""


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
    """Copy the image files, unchanged unless the tool can't read them so; otherwise the export has their URIs."""
    suffix: str | None = None
    """The one ending that all images' files get; those of another are converted to PNG. None lets each keep its own."""
    image_root: str | None = None
    """COCO: URI of the folder that names of images count from unless they are copied; None names them by URI."""


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """One image of an export."""

    image_id: str
    number: int
    """Position in the manifest, from 1."""
    image_uri: str
    folder: str
    """The split, safe as a file's name; NO_SPLIT for rows that have none."""
    split: str | None
    """The manifest's."""
    labels: tuple[str, ...] | None
    """The manifest's."""

    @property
    def stem(self) -> str:
        """Name of the image's files, without ending."""
        return file_stem(self.image_id)


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

    height: int
    width: int
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
    one_suffix: ClassVar[bool] = False
    """Whether the tool looks for images of one ending."""
    readable: ClassVar[frozenset[str] | None] = None
    """Endings of images that the tool reads, as `image_suffix` gives them; None reads all."""

    images_inside: ClassVar[bool] = False
    """Whether the tool looks for images in `image_folder`, wherever they are."""
    names_from_folder: ClassVar[bool] = False
    """Whether the tool is told a folder, from which the names of all images count."""

    def __init__(self, classes: Sequence[str], options: Options | None = None) -> None:
        self.classes = tuple(classes)
        self.options = options or Options()

    def image_folder(self, folder: str) -> str | None:  # noqa: ARG002 - for formats that copy images
        """Returns the folder for copied images of a split; None if the format keeps them elsewhere or never copies."""
        return None

    def mask_file(self, row: ExportRow) -> str | None:  # noqa: ARG002 - for formats that have one
        """Returns the path of an image's file of a mask; None if the format keeps masks elsewhere."""
        return None

    def suffix(self, image_uri: str) -> str:
        """Returns the ending of an image's file in the export."""
        own = image_suffix(image_uri)
        if self.options.suffix is not None:
            return self.options.suffix
        return own if self.readable is None or own in self.readable else LOSSLESS

    def converts(self, image_uri: str) -> bool:
        """Whether the image's file in the export is of another kind than the image's own."""
        return self.suffix(image_uri) != image_suffix(image_uri)

    def image_name(self, row: ExportRow) -> str:
        """Returns the name of an image's file."""
        return row.stem + self.suffix(row.image_uri)

    def listed_file(self, row: ExportRow) -> str:
        """Returns what `images.csv` names as an image's file: where it is, or where a tool wants it to be brought."""
        folder = self.image_folder(row.folder)
        return "" if folder is None else f"{folder}/{self.image_name(row)}"

    def image_path(self, row: ExportRow) -> str:
        """Returns where other tools find an image: its path or URI.

        In a container they don't, so that it is a file's name.
        """
        return row.image_uri if split_place(row.image_uri)[1] is None else self.image_name(row)

    def conclude(self, rows: Rows, out: str) -> None:
        """Writes all that describes all images, below the URI `out`."""
        self.finish(rows, out)
        self._write_image_list(rows, out)

    @abstractmethod
    def render(self, row: MaskRow) -> Rendered:
        """Returns the image's files and items, without the image itself."""

    @abstractmethod
    def finish(self, rows: Rows, out: str) -> None:
        """Writes the format's own files that describe all images, below the URI `out`."""

    def _write_image_list(self, rows: Rows, out: str) -> None:
        """Writes `images.csv`: what the manifest says of each image, and where its files are."""
        with storage.writing(storage.join(out, IMAGE_LIST)) as file:
            file.write(_csv_line(IMAGE_LIST_COLUMNS))
            for row in rows():
                values = {
                    "image_id": row.image_id,
                    "file": self.listed_file(row),
                    "image_uri": row.image_uri,
                    "split": row.split or "",
                    "labels": "" if row.labels is None else json.dumps(row.labels, ensure_ascii=False),
                    "mask": self.mask_file(row) or "",
                    "height": row.height,
                    "width": row.width,
                    "number": row.number,
                }
                file.write(_csv_line([values[name] for name in IMAGE_LIST_COLUMNS]))


def image_suffix(image_uri: str) -> str:
    """Returns the ending of an image file, or ".jpg" if its URI has no known one."""
    content = content_type(image_uri)
    found = f".{content}".lower() if content else suffix_of(image_uri)
    return _SAME_SUFFIX.get(found, found) if found in IMAGE_SUFFIXES else ".jpg"


def _csv_line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


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
            files[row.folder].write(f"{line(row)}\n".encode())


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
