"""Tells what a file is by its first bytes: names of files say little."""

import importlib.util
import re

HEAD = 64
"""Bytes that are enough."""

_HEADS = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00{3}", "BMP"),
    (rb"P[1-6]\s+(?:#|\d)", "PPM"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"\x00\x00\x00\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb"8BPS\x00[\x01\x02]", "Photoshop"),
)
_BRANDS = {"AVIF": (b"avif", b"avis"), "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")}


def image_kind(head: bytes) -> str | None:
    """The format of an image whose file begins so; None for what is no image."""
    for pattern, kind in _HEADS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[start : start + 4] for start in range(16, size, 4))]
        for kind, known in _BRANDS.items():
            if any(brand in known for brand in brands):
                return kind
    return None


def what_helps(kind: str) -> str | None:
    """What images of a format need to be decoded here, as "images, which …" says it; None for nothing."""
    if kind in ("JPEG XL", "Photoshop"):
        return "need to be saved as JPEG, PNG or WebP"
    if kind == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
        return "need pillow-heif on every machine"
    return None
