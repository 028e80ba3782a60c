"""Reads the headers of TIFF files, and says where the segments (tiles or strips) of their images are.

tifffile reads the tags and knows how segments are packed; the extra `raster` brings it. What isn't read by windows, or
would take more memory than a file of its size should, is refused here.
"""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from operator import index as as_index
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

from raypipe.data.opening import MAX_PIXELS, MAX_SCENE_PIXELS, ImageError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
"""How TIFF and BigTIFF begin, little and big endian."""

_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "zstd"}
"""Those that are read: all but JPEG unpack into memory of a size that the header states."""

_JPEG = 7
_GREY_IS_LIGHT, _RGB, _YCBCR = (1,), 2, 6
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Pixel scale, tie points, transformation, and the keys of the coordinate system with their two lists of values."""

_NODATA_TAG, _ORIENTATION_TAG = 42113, 274

_MAX_SEGMENT_BYTES = 3 * MAX_PIXELS
_MAX_OVERVIEWS = 32

DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError, struct.error)
"""Errors that tifffile and its decoders have been observed to raise on damaged bytes."""


class Source(Protocol):
    """Where a raster's bytes come from."""

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Opens the file, of which the header is read."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns the bytes from each start up to each end."""


@dataclass(frozen=True)
class InMemory:
    """A raster whose bytes are in memory."""

    data: bytes

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Opens the bytes."""
        return io.BytesIO(self.data)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns parts of them."""
        return [self.data[start:end] for start, end in ranges]


class GeoTag(NamedTuple):
    """A tag of a GeoTIFF as tifffile writes it."""

    code: int
    kind: int
    """Its data type, by TIFF's number."""
    length: int
    value: Any


def is_tiff(data: bytes) -> bool:
    """True if bytes begin as those of a TIFF file."""
    return data[:4] in _MAGIC


class Plane:
    """One image of the file, the raster or a smaller copy of it, in segments.

    Raises:
        ImageError: its segments contradict its size, or are larger than any that is read.
    """

    def __init__(self, page: "TiffPage") -> None:
        self.height, self.width = page.imagelength, page.imagewidth
        self.samples, self.apart = page.samplesperpixel, page.planarconfig == 2
        assert page.dtype is not None  # looked at before
        self.dtype = page.dtype.newbyteorder("=")
        self.offsets, self.sizes = tuple(map(as_index, page.dataoffsets)), tuple(map(as_index, page.databytecounts))
        if page.is_tiled:
            self.rows, self.columns = page.tilelength, page.tilewidth
        else:
            self.rows, self.columns = min(page.rowsperstrip, self.height), self.width
        in_one = 1 if self.apart else self.samples
        if self.rows < 1 or self.columns < 1:
            raise ImageError(f"its segments are {self.columns} x {self.rows} pixels")
        if self.rows * self.columns * in_one * self.dtype.itemsize > _MAX_SEGMENT_BYTES:
            raise ImageError(
                f"its segments are {self.columns} x {self.rows} pixels, of {in_one} x {self.dtype}, which is more than "
                f"{_MAX_SEGMENT_BYTES:,} bytes each: write it in tiles (gdal_translate -co TILED=YES)"
            )
        self.down, self.across = -(-self.height // self.rows), -(-self.width // self.columns)
        expected = self.down * self.across * (self.samples if self.apart else 1)
        if not len(self.offsets) == len(self.sizes) == expected:
            raise ImageError(f"it has {len(self.offsets)} segments where its size asks for {expected}")
        if min(self.offsets) < 0 or not 0 <= min(self.sizes) <= max(self.sizes) <= _MAX_SEGMENT_BYTES:
            raise ImageError(f"its segments have up to {max(self.sizes):,} bytes; allowed are {_MAX_SEGMENT_BYTES:,}")
        self.tables: bytes | None = page.jpegtables
        self.is_jpeg = page.compression == _JPEG
        self.decode: Callable[..., Any] = page.decode

    @property
    def pixels_per_segment(self) -> int:
        """Of a whole one."""
        return self.rows * self.columns


@contextmanager
def opened(source: Source) -> Iterator["TiffFile"]:
    """Opens a TIFF file, whose tags are read as they are asked for."""
    try:
        import imagecodecs  # noqa: F401 - without it tifffile unpacks without a limit
        from tifffile import TiffFile
    except ImportError as error:  # a missing library isn't the image's fault
        raise ModuleNotFoundError(
            "images.bands and images.tile need tifffile and imagecodecs: run pip install -e '.[raster]' in raypipe's "
            "clone"
        ) from error
    with reading(), source.open() as file, TiffFile(file, name="raster") as tiff:
        yield tiff


def first_page(tiff: "TiffFile") -> "TiffPage":
    """Returns the image that the file is about.

    Raises:
        ImageError: there is none.
    """
    page = tiff.pages.first
    if page.imagewidth < 1 or page.imagelength < 1:
        raise ImageError("TIFF without an image")
    return page


def copies(tiff: "TiffFile", first: "TiffPage") -> Iterator["TiffPage"]:
    """Smaller copies of the image."""
    from tifffile import TiffPage

    for index in range(1, _MAX_OVERVIEWS):
        try:
            page = tiff.pages.get(index, validate=False)
        except IndexError:
            return
        if isinstance(page, TiffPage) and page.is_reduced and _is_copy(page, first):
            yield page


def _is_copy(page: "TiffPage", first: "TiffPage") -> bool:
    names = ("dtype", "samplesperpixel", "photometric")
    if page.subfiletype & 4 or page.compression not in _COMPRESSIONS or page.imagedepth != 1:
        return False
    return page.imagewidth < first.imagewidth and all(getattr(page, name) == getattr(first, name) for name in names)


def check_layout(page: "TiffPage") -> None:
    """Makes sure that an image is of a kind that is read by windows.

    Raises:
        ImageError: it isn't; the message says what to do.
    """
    width, height = page.imagewidth, page.imagelength
    if width < 1 or height < 1 or width * height > MAX_SCENE_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels; allowed are 1 to {MAX_SCENE_PIXELS:,} of a TIFF in tiles or strips: cut it"
        )
    if page.compression not in _COMPRESSIONS:
        raise ImageError(
            f"TIFF compression {int(page.compression)} isn't read by windows; {', '.join(_COMPRESSIONS.values())} are: "
            "write it so (gdal_translate -co COMPRESS=DEFLATE -co TILED=YES)"
        )
    bits = page.bitspersample
    if page.imagedepth != 1 or bits not in (8, 16, 32, 64) or page.dtype is None or page.dtype.kind not in "iuf":
        raise ImageError(f"TIFF of {bits} bits, {page.dtype}: bands are integers or floats of 8, 16, 32 or 64 bits")
    if page.photometric not in (0, *_GREY_IS_LIGHT, _RGB, _YCBCR) or (
        page.photometric == _YCBCR and page.compression != _JPEG
    ):
        raise ImageError(f"TIFF of colours {page.photometric!r}: save it as grey, RGB or plain bands")
    if (turned := page.tags.valueof(_ORIENTATION_TAG)) not in (None, 1):
        raise ImageError(f"TIFF of orientation {turned}: save it upright")


def chosen_bands(page: "TiffPage", bands: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the numbers of the bands to read, from 1; None takes the three of an RGB file, or the only one.

    Raises:
        ImageError: the file lacks one, or nothing says which are meant.
    """
    number = page.samplesperpixel
    if bands is None:
        if page.photometric in (_RGB, _YCBCR) and number >= 3:
            return 1, 2, 3
        if number == 1:
            return (1,)
        raise ImageError(
            f"TIFF of {number} bands: nothing says which are red, green and blue; images.bands does, such as [3,2,1]"
        )
    if max(bands) > number:
        raise ImageError(f"TIFF of {number} bands, but images.bands is {list(bands)}")
    return tuple(bands)


def geotags(source: Source) -> tuple[GeoTag, ...]:
    """What says where on Earth a TIFF file's image lies, whatever its layout; empty where nothing does.

    Raises:
        ImageError: the header is damaged.
    """
    with opened(source) as tiff:
        first = first_page(tiff)
        found = [tag for tag in map(first.tags.get, _GEOTIFF_TAGS) if tag is not None]
        return tuple(GeoTag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found)


def nodata_of(page: "TiffPage") -> float | None:
    """Returns the value of pixels that hold no data, as GDAL notes it; None where there is none."""
    text = page.tags.valueof(_NODATA_TAG)
    try:
        return None if text is None else float(str(text).strip(" \0"))
    except ValueError:
        return None  # it marks no pixel of a numeric band


def check_jpeg(data: bytes, plane: Plane, index: int) -> None:
    """Makes sure that a JPEG has no more pixels than its segment, before memory is taken for it."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if height <= plane.rows and width <= plane.columns:
                return
            raise ImageError(f"damaged TIFF: segment {index} is a JPEG of {width} x {height} pixels")
        place += 2 + length
    raise ImageError(f"damaged TIFF: segment {index} is no JPEG")


class reading:  # noqa: N801 - used as a context manager
    """Makes ImageErrors of what tifffile raises on damaged bytes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DAMAGE) and not isinstance(error, ImageError):
            text = str(error) if str(error).isascii() and str(error).isprintable() else type(error).__name__
            raise ImageError(f"damaged or truncated TIFF: {text[:200]}") from error
