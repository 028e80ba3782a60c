"""What a file is, by its first bytes."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from raypipe.data.content import HEAD, image_kind, what_helps

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
        ("BMP", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("AVIF", {}),
    ],
)
def test_what_pillow_writes(kind: str, options: dict[str, bool]) -> None:
    buffer = io.BytesIO()
    PIXELS.save(buffer, kind, **options)
    assert image_kind(buffer.getvalue()[:HEAD]) == kind
    assert what_helps(kind) is None


@pytest.mark.parametrize(("mode", "number"), [("1", b"P4"), ("L", b"P5"), ("RGB", b"P6")])
def test_portable_maps(mode: str, number: bytes) -> None:
    buffer = io.BytesIO()
    PIXELS.convert(mode).save(buffer, "PPM")
    assert buffer.getvalue().startswith(number)
    assert image_kind(buffer.getvalue()[:HEAD]) == "PPM"
    assert image_kind(b"P2\n# made by GIMP\n7 5\n") == "PPM"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bitmaps(mode: str) -> None:
    buffer = io.BytesIO()
    PIXELS.convert(mode).save(buffer, "BMP")
    assert image_kind(buffer.getvalue()[:HEAD]) == "BMP"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"hello world",
        b"image_uri,labels\n",
        b"<?xml version='1.0'?><svg>",
        b"<!DOCTYPE html>",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"BMW and other cars, a list of them all, by year",
        b"P1 is a place in the parking garage",
        b"P5is",
        b"GIF89",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"II*",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"\0\0\0\x14ftypqt  ",
        b"PAR1",
        b"\0" * 64,
        b"\x89PNG\n",
    ],
)
def test_what_is_no_image(head: bytes) -> None:
    assert image_kind(head) is None


def brands(*names: bytes) -> bytes:
    content = b"ftyp" + names[0] + bytes(4) + b"".join(names[1:])
    return (4 + len(content)).to_bytes(4, "big") + content + b"more"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (brands(b"heic", b"mif1", b"heic"), "HEIC"),
        (brands(b"mif1", b"mif1", b"heic"), "HEIC"),
        (brands(b"msf1", b"hevc"), "HEIC"),
        (brands(b"heix"), "HEIC"),
        (brands(b"avif", b"avif", b"mif1", b"miaf"), "AVIF"),
        (brands(b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
        (b"\xff\x0a\x00", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"8BPS\0\x02", "Photoshop"),
    ],
)
def test_other_formats(head: bytes, kind: str) -> None:
    assert image_kind(head) == kind


def test_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert what_helps("HEIC") == "need pillow-heif on every machine"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert what_helps("HEIC") is None
    assert what_helps("JPEG XL") == "need to be saved as JPEG, PNG or WebP"
