"""Bad and odd inputs: how each is written, and what a person expects to come of it.

Every case is one row of a manifest. It is finished, with a mask of `size`, or quarantined, with `reason`; nothing else
may happen to a row.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

CLASSES = ("cat", "dog")
HEIGHT, WIDTH = 24, 40


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: an image, labels, an id, and what becomes of it."""

    name: str
    write: Callable[[Path], str | None]
    """Writes the image into an empty folder; its URI."""
    size: tuple[int, int] | None = None
    """(height, width) of the mask; None for a row that is quarantined."""
    reason: str | None = None
    """A part of the quarantine's reason."""
    labels: list[str | None] | None = field(default_factory=lambda: ["cat"])
    image_id: str | None = None
    """None takes the name."""
    truth: Callable[[Path], str] | None = None
    """Writes a true mask; its URI."""
    unscored: str | None = None
    """A part of the reason why the true mask isn't compared."""

    def row(self, folder: Path) -> dict[str, Any]:
        """The manifest's row, with its files in the folder."""
        folder.mkdir()
        return {
            "image_id": self.image_id or self.name,
            "image_uri": self.write(folder),
            "labels": self.labels,
            "split": "train",
            "mask_uri": self.truth(folder) if self.truth else None,
        }


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def photo(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A smooth picture in colours, the same each time."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def file(make: Callable[[], bytes], name: str = "image.jpg") -> Callable[[Path], str]:
    """Writes a file of that name."""

    def write(folder: Path) -> str:
        path = folder / name
        path.write_bytes(make())
        return str(path)

    return write


def at(uri: str | None) -> Callable[[Path], str | None]:
    """Writes nothing; `{folder}` in the URI stands for the case's folder."""
    return lambda folder: uri and uri.replace("{folder}", str(folder))


def png_of(width: int, height: int) -> bytes:
    """A valid black PNG of 1 bit a pixel, of any size, without an array of that size."""
    packer = zlib.compressobj()
    line = bytes(1 + -(-width // 8))
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG's chunk, with its checksum."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + chunk(kind, data) + png[33:]


def _cut(data: bytes, share: float = 0.6) -> bytes:
    return data[: int(len(data) * share)]


def _exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def _lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(photo(), ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def _frames(kind: str) -> bytes:
    return encode(photo(), kind, save_all=True, append_images=[photo().rotate(180)])


def _wide(mode: str, dtype: str) -> Image.Image:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(dtype)
    return Image.frombytes(mode, (WIDTH, HEIGHT), values.tobytes())


def _damaged_float() -> bytes:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[3, 5] = np.nan
    return encode(Image.fromarray(values), "TIFF")


def _transparent_palette() -> bytes:
    return encode(photo().convert("P"), transparency=3)


def _unreadable(folder: Path) -> str:
    path = Path(file(lambda: encode(photo(), "JPEG"))(folder))
    path.chmod(0)
    return str(path)


def _loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return str(folder / "loop")


def _below_a_file(folder: Path) -> str:
    return file(lambda: encode(photo(), "JPEG"))(folder) + "/image.jpg"


def _file_uri(folder: Path) -> str:
    return "file://" + GOOD(folder)


def _zipped(folder: Path) -> str:
    with zipfile.ZipFile(folder / "images #1.zip", "w") as archive:
        archive.writestr("sub/a b.jpg", encode(photo(), "JPEG"))
    return f"zip://sub/a b.jpg::{folder}/images #1.zip"


def _truth(make: Callable[[], Image.Image]) -> Callable[[Path], str]:
    return file(lambda: encode(make()), "truth.png")


GOOD = file(lambda: encode(photo(), "JPEG"))
_SIZE = (HEIGHT, WIDTH)


def _kind(name: str, make: Callable[[], bytes], **expected: Any) -> Case:
    """An image that is finished, at its own size unless told otherwise."""
    return Case(name=name, write=file(make), **{"size": _SIZE, **expected})


def _broken(name: str, make: Callable[[], bytes], reason: str) -> Case:
    return Case(name=name, write=file(make), reason=reason)


def _place(name: str, uri: str | None, reason: str) -> Case:
    return Case(name=name, write=at(uri), reason=reason)


def _label(name: str, labels: list[str | None] | None, **expected: Any) -> Case:
    return Case(name=name, write=GOOD, labels=labels, **expected)


def _id(name: str, image_id: str) -> Case:
    return Case(name=f"id: {name}", write=GOOD, image_id=image_id, size=_SIZE)


IMAGES = [
    _kind("good", lambda: encode(photo(), "JPEG")),
    _kind("PNG named .jpg", lambda: encode(photo())),
    _kind("CMYK JPEG", lambda: encode(photo().convert("CMYK"), "JPEG")),
    _kind("grey", lambda: encode(photo().convert("L"), "JPEG")),
    _kind("1 bit", lambda: encode(photo().convert("1"))),
    _kind("palette", lambda: encode(photo().convert("P"))),
    _kind("palette with transparency", _transparent_palette),
    _kind("grey with alpha", lambda: encode(photo().convert("LA"))),
    _kind("RGBA", lambda: encode(photo().convert("RGBA"))),
    _kind("16-bit grey PNG", lambda: encode(_wide("I;16", "<u2"))),
    _kind("16-bit grey TIFF, big-endian", lambda: encode(_wide("I;16B", ">u2"), "TIFF")),
    _kind("LAB TIFF", lambda: encode(_lab(), "TIFF")),
    _kind("CMYK TIFF", lambda: encode(photo().convert("CMYK"), "TIFF", compression="tiff_lzw")),
    _kind("EXIF rotation", lambda: encode(photo(), "JPEG", exif=_exif(6)), size=(WIDTH, HEIGHT)),
    _kind("EXIF rotation of a PNG", lambda: encode(photo(), exif=_exif(8)), size=(WIDTH, HEIGHT)),
    _kind("EXIF orientation 99", lambda: encode(photo(), "JPEG", exif=_exif(99))),
    _kind("broken EXIF", lambda: encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")),
    _kind("broken ICC profile", lambda: encode(photo(), "JPEG", icc_profile=b"garbage" * 20)),
    _kind("garbage after the JPEG", lambda: encode(photo(), "JPEG") + b"<?php garbage ?>" * 50),
    _kind(
        "PNG with a large text", lambda: _with_chunk(encode(photo()), b"zTXt", b"a\0\0" + zlib.compress(bytes(9**7)))
    ),
    _kind("animated GIF", lambda: _frames("GIF")),
    _kind("animated WebP", lambda: _frames("WEBP")),
    _kind("one pixel", lambda: encode(photo(1, 1)), size=(1, 1)),
    _kind("one row", lambda: encode(photo(1, 20_000)), size=(1, 20_000)),
    _kind("one column", lambda: encode(photo(20_000, 1)), size=(20_000, 1)),
    _kind("reduced and brought back", lambda: encode(photo(30, 1500), "JPEG"), size=(30, 1500)),
    _broken("truncated JPEG", lambda: _cut(encode(photo(), "JPEG"), 0.95), "truncated JPEG"),
    _broken("truncated progressive JPEG", lambda: _cut(encode(photo(), "JPEG", progressive=True), 0.95), "truncated"),
    _broken("JPEG truncated in its header", lambda: _cut(encode(photo(), "JPEG")), "the header can't be read"),
    _broken("truncated PNG", lambda: _cut(encode(photo())), "truncated"),
    _broken("truncated GIF", lambda: _cut(encode(photo(), "GIF")), "truncated GIF"),
    _broken("truncated TIFF", lambda: _cut(encode(photo(), "TIFF")), "ImageError"),
    _broken("empty file", lambda: b"", "the file is empty"),
    _broken("zeros", lambda: bytes(5000), "not an image in a supported format"),
    _broken("HTML named .jpg", lambda: b"<!DOCTYPE html><title>404</title>", "not an image in a supported format"),
    _broken(
        "SVG named .jpg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a supported format"
    ),
    _broken("PostScript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a supported"),
    _broken(
        "floating-point TIFF with nan", _damaged_float, "mode F: pixels from nan to nan have no known range: save 8"
    ),
    _broken("32-bit TIFF", lambda: encode(Image.new("I", (4, 4), 70_000), "TIFF"), "have no known range"),
    _broken("pixel bomb", lambda: png_of(12_000, 12_000), "12000 x 12000 is more than 89,478,485 pixels"),
]
"""What is in the file."""

PLACES = [
    Case(name="a file URI", write=_file_uri, size=_SIZE),
    Case(name="odd characters in a path", write=file(lambda: encode(photo()), "ü a%20b#c?d::e.jpg"), size=_SIZE),
    _place("missing object", "{folder}/absent.jpg", "FileNotFoundError"),
    _place("a folder", "{folder}", "IsADirectoryError"),
    _place("null URI", None, "image_uri is empty"),
    _place("empty URI", "", "image_uri is empty"),
    _place("unknown scheme", "foo://bucket/image.jpg", "foo:// can't be opened"),
    _place("scheme without its package", "github://bucket/image.jpg", "github:// can't be opened"),
    _place("archive that isn't there", "zip://image.jpg::file://{folder}/images.zip", "FileNotFoundError"),
    Case(name="an image in an archive", write=_zipped, size=_SIZE),
    _place("illegal bucket", "s3://no bucket/image.jpg", "expected s3://bucket/key"),
    _place("NUL in a path", "{folder}/a\0b.jpg", "null byte"),
    _place("newline in a path", "{folder}/a\nb.jpg", "FileNotFoundError"),
    _place("name too long", "{folder}/" + "x" * 300, "no file can be at"),
    Case(name="below a file", write=_below_a_file, reason="NotADirectoryError"),
    Case(name="link in a circle", write=_loop, reason="no file can be at"),
    # Root may read everything.
    *([Case(name="access denied", write=_unreadable, reason="PermissionError")] if os.geteuid() else []),
]
"""Where the file is."""

LABELS = [
    _label("empty labels", [], size=_SIZE),
    _label("a label twice", ["dog", "cat", "dog"], size=_SIZE),
    _label("null labels", None, reason="labels are null"),
    _label("unknown label", ["unicorn"], reason="unknown label 'unicorn': known are cat, dog"),
    _label("label in another case", ["Cat"], reason="unknown label 'Cat': did you mean 'cat'?"),
    _label("null among labels", ["cat", None], reason="unknown label None"),
    _label("endless label", ["x" * 100_000], reason="unknown label 'xxx"),
]

IDS = [
    _id("slashes", "a/b/c"),
    _id("up and out", "../../../../outside"),
    _id("absolute", "/etc/passwd"),
    _id("two dots", ".."),
    _id("one dot", "."),
    _id("composed", "caf\u00e9"),
    _id("decomposed", "cafe\u0301"),
    _id("snowman", "☃ 雪"),
    _id("spaces", " a b "),
    _id("300 characters", "x" * 300),
    _id("other 300 characters", "x" * 299 + "y"),
    _id("newline", "a\nb"),
    _id("NUL", "a\0b"),
    _id("markup", "\"><script>alert('id')</script>"),
    _id("the name of another's file", "good.png"),
    _id("percent", "%2e%2e%2foutside"),
    _id("backslashes", "..\\..\\outside"),
    _id("tilde", "~root"),
]

TRUTHS = [
    Case(name="true mask", write=GOOD, size=_SIZE, truth=_truth(lambda: Image.new("L", (WIDTH, HEIGHT), 1))),
    Case(
        name="true mask of another size",
        write=GOOD,
        size=_SIZE,
        truth=_truth(lambda: Image.new("L", (WIDTH, HEIGHT + 1))),
        unscored="the true mask is (25, 40)",
    ),
    Case(name="true mask in colours", write=GOOD, size=_SIZE, truth=_truth(photo), unscored="mode RGB"),
    Case(
        name="true mask of unknown classes",
        write=GOOD,
        size=_SIZE,
        truth=_truth(lambda: Image.new("L", (WIDTH, HEIGHT), 9)),
        unscored="values [9], but class ids end at 2",
    ),
    Case(
        name="true mask missing",
        write=GOOD,
        size=_SIZE,
        truth=lambda folder: str(folder / "absent.png"),
        unscored="FileNotFoundError",
    ),
]

CASES = [*IMAGES, *PLACES, *LABELS, *IDS, *TRUTHS]
