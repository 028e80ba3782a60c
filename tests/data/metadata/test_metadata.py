"""Whatever an image file says beside its pixels, its pixels are those of the file that says nothing."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus import chunk, encode, photo
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from raypipe.data.images import decode_image, decode_mask
from raypipe.data.metadata import without_metadata
from raypipe.data.opening import ImageError, check_header

HEADER_END = 33
"""Of a PNG: where its first chunk ends."""
MEGABYTES = 2_000_000
MASK = np.random.default_rng(0).integers(0, 4, (24, 40), dtype=np.uint8)


def wrong_checksum(kind: bytes, data: bytes) -> bytes:
    return chunk(kind, data)[:-4] + b"\1\2\3\4"


def profile_name(data: bytes) -> bytes:
    return b"name\0\0" + zlib.compress(data)


PNG_CHUNKS = {
    "a profile of megabytes": chunk(b"iCCP", profile_name(bytes(MEGABYTES))),
    "a damaged profile": chunk(b"iCCP", b"name\0\0garbage"),
    "a profile of an unknown compression": chunk(b"iCCP", b"name\0\7garbage"),
    "an empty profile": chunk(b"iCCP", b""),
    "a profile without a name": chunk(b"iCCP", b"x" * 200),
    "a packed text of megabytes": chunk(b"zTXt", profile_name(b"x" * MEGABYTES)),
    "a packed text of an unknown compression": chunk(b"zTXt", b"key\0\5text"),
    "an international text of megabytes": chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"x" * MEGABYTES)),
    "an international text that is cut": chunk(b"iTXt", b"key\0\1"),
    "a text of megabytes": chunk(b"tEXt", b"workflow\0" + b"x" * 70 * 2**20),
    "a text without a key": chunk(b"tEXt", b"\0text"),
    "a damaged EXIF block": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "an empty EXIF block": chunk(b"eXIf", b""),
    "no gamma": chunk(b"gAMA", b""),
    "a short chromaticity": chunk(b"cHRM", bytes(5)),
    "a short size of pixels": chunk(b"pHYs", b"\1"),
    "no rendering intent": chunk(b"sRGB", b""),
    "an animation without frames": chunk(b"acTL", b""),
    "a frame that is cut": chunk(b"fcTL", bytes(3)),
    "a frame that is out of place": chunk(b"fcTL", struct.pack(">7I", 9, 999, 999, 5, 5, 0, 0)),
    "an unknown chunk": chunk(b"prVt", b"\0\xff" * 50),
    "a chunk that is named as a method": chunk(b"auTo", b"text"),
    "a wrong checksum of a text": wrong_checksum(b"tEXt", b"key\0text"),
    "a wrong checksum of the time": wrong_checksum(b"tIME", bytes(7)),
    "a wrong checksum of an unknown chunk": wrong_checksum(b"abCd", bytes(7)),
    "a wrong checksum of the transparency": wrong_checksum(b"tRNS", bytes(6)),
    "a transparency that is cut": chunk(b"tRNS", b"\0"),
}


def png(image: Image.Image | None = None, *, before: bytes = b"", after: bytes = b"", **options: Any) -> bytes:
    data = encode(image or photo(), **options)
    return data[:HEADER_END] + before + data[HEADER_END:-12] + after + data[-12:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


JPEG_SEGMENTS = {
    "a comment": segment(0xFE, bytes(range(256))),
    "many comments": segment(0xFE, b"x" * 65_000) * 40,
    "a profile in wrong parts": segment(0xE2, b"ICC_PROFILE\0\2\5" + bytes(99)),
    "a profile that is cut": segment(0xE2, b"ICC_PROFILE\0"),
    "an EXIF block that is cut": segment(0xE1, b"Exif\0\0MM"),
    "an EXIF block that leads out of itself": segment(0xE1, b"Exif\0\0MM\0*\0\0\x99\0" + bytes(50)),
    "an EXIF block of bad numbers": segment(
        0xE1,
        b"Exif\0\0II*\0\x08\0\0\0" + b"\3\0" + b"".join(struct.pack("<HHII", tag, 5, 1, 0) for tag in (282, 283, 296)),
    ),
    "an XMP packet that is no text": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff\xfe" * 99),
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "an unknown APP0": segment(0xE0, b"JFXX\0\x10garbage"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "pictures of an MPO that are nowhere": segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + b"\xff" * 60),
    "an MPO that is cut": segment(0xE2, b"MPF\0"),
    "Photoshop's blocks, cut": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
    "FlashPix": segment(0xE2, b"FPXR\0"),
    "an empty segment": segment(0xE7, b""),
    "a length of nothing": b"\xff\xe9\0\0",
    "fill bytes": b"\xff" * 9,
    "a comment longer than it says": segment(0xFE, b"") + b"\0\1\2",
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
@pytest.mark.filterwarnings("error")
def test_a_pngs_chunks_cost_no_pixel(name: str) -> None:
    data = PNG_CHUNKS[name]
    bare = decode_image(png()).pixels
    np.testing.assert_array_equal(decode_image(png(before=data)).pixels, bare)
    np.testing.assert_array_equal(decode_image(png(after=data)).pixels, bare)
    check_header(png(before=data))
    np.testing.assert_array_equal(decode_mask(png(Image.fromarray(MASK), before=data)), MASK)


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
@pytest.mark.filterwarnings("error")
def test_a_jpegs_segments_cost_no_pixel(name: str) -> None:
    for image in (photo(), photo().convert("L"), photo().convert("CMYK")):
        data = encode(image, "JPEG")
        bare = decode_image(data).pixels
        for place in (2, data.index(b"\xff\xdb")):
            changed = data[:place] + JPEG_SEGMENTS[name] + data[place:]
            np.testing.assert_array_equal(decode_image(changed).pixels, bare)


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(behind: bytes, *, flags: int) -> bytes:
    extended = webp_chunk(b"VP8X", struct.pack("<I", flags) + (39).to_bytes(3, "little") + (23).to_bytes(3, "little"))
    content = b"WEBP" + extended + encode(photo(), "WEBP")[12:] + behind
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize(
    ("behind", "flags"),
    [
        (webp_chunk(b"EXIF", b"garbage"), 0x08),
        (webp_chunk(b"EXIF", bytes(1000))[:-500], 0x08),
        (webp_chunk(b"XMP ", b"\xff" * 77), 0x04),
        (webp_chunk(b"ICCP", bytes(MEGABYTES)), 0x20),
        (webp_chunk(b"odd ", b"x"), 0),
        (b"", 0x2C),
        (b"trailing", 0),
        (b"EXIF\xff\xff\xff\xff", 0x08),
    ],
)
def test_a_webps_chunks_cost_no_pixel(behind: bytes, flags: int) -> None:
    bare = decode_image(encode(photo(), "WEBP")).pixels
    np.testing.assert_array_equal(decode_image(webp(behind, flags=flags)).pixels, bare)


def gif(extension: bytes) -> bytes:
    data = encode(photo(), "GIF")
    end = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:end] + extension + data[end:]


@pytest.mark.parametrize(
    "extension",
    [
        b"\x21\xfe\x05hello\0" * 500,
        b"\x21\xfe\0",
        b"\x21\xff\x0bNETSCAPE2.0\0",
        b"\x21\xff\x0bNETSCAPE2.0\1\1\0",
        b"\x21\xff\x0bXMP DataXMP<x/>\1" + bytes(range(255, -1, -1)) + b"\0",
        b"\x21\xff\x0bICCRGBG1012\xff" + bytes(255) + b"\0",
        b"\x21\x01\x0c" + bytes(12) + b"\5hello\0",
        b"\x21\xf9\1\0\0",
        b"\x21\x77\3abc\0",
    ],
)
def test_a_gifs_extensions_cost_no_pixel(extension: bytes) -> None:
    np.testing.assert_array_equal(decode_image(gif(extension)).pixels, decode_image(encode(photo(), "GIF")).pixels)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    "resolution", [box(b"res ", b""), box(b"res ", box(b"resc", b"\1\2")), box(b"res ", box(b"resc", bytes(10)))]
)
def test_a_jpeg_2000s_resolution_costs_no_pixel(resolution: bytes) -> None:
    data = encode(photo(), "JPEG2000")
    start = data.index(b"jp2h") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    changed = data[:start] + box(b"jp2h", data[start + 8 : end] + resolution) + data[end:]
    np.testing.assert_array_equal(decode_image(changed).pixels, decode_image(data).pixels)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_damaged_exif_block_of_an_avif_costs_no_pixel(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    data = encode(photo(), "AVIF", exif=exif.tobytes())
    start = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    damaged = data[:start] + b"\xff" * 8 + data[start + 8 :]
    with pytest.raises(ValueError, match="Exif"):
        Image.open(io.BytesIO(damaged))
    np.testing.assert_array_equal(decode_image(damaged).pixels, decode_image(data).pixels)


def tiff(order: str, extra: list[tuple[int, int, int, int]]) -> bytes:
    """A grey TIFF of one strip, with more entries: tag, type, count and value."""
    mark = "<" if order == "II" else ">"
    entries = [(256, 3, 1, 40), (257, 3, 1, 24), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 3, 1, 24), (279, 4, 1, 960), *extra]
    packed = b"".join(
        struct.pack(
            mark + "HHI" + ("HH" if kind == 3 else "I"), tag, kind, count, *([value, 0] if kind == 3 else [value])
        )
        for tag, kind, count, value in sorted(entries)
    )
    start = 8 + 960
    head = order.encode() + struct.pack(mark + "HI", 42, start)
    return head + MASK.tobytes() + struct.pack(mark + "H", len(entries)) + packed + struct.pack(mark + "I", 77)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(
    "entry",
    [
        (270, 2, 5000, 10**9),
        (270, 2, 2**31, 8),
        (305, 99, 5, 0),
        (315, 2, 0, 0),
        (700, 1, 900, 8),
        (34665, 4, 1, 10**9),
        (34853, 4, 1, 12),
        (34675, 7, 10**9, 8),
        (37724, 7, 600, 10**6),
        (282, 5, 1, 10**8),
    ],
)
def test_a_tiffs_tags_cost_no_pixel(order: str, entry: tuple[int, int, int, int]) -> None:
    data = tiff(order, [entry])
    np.testing.assert_array_equal(decode_image(data).pixels, decode_image(tiff(order, [])).pixels)
    np.testing.assert_array_equal(decode_mask(data), MASK)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_later_pictures_cost_no_pixel_of_the_first(kind: str, share: float) -> None:
    others = [photo().rotate(90), photo().rotate(180)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(photo(), kind, save_all=True, append_images=others, **options)
    first = decode_image(encode(photo(), kind, **options)).pixels
    np.testing.assert_array_equal(decode_image(data).pixels, first)
    np.testing.assert_array_equal(decode_image(data[: -int(len(data) * share)]).pixels, first)


def test_the_pictures_behind_an_mpos_first_may_be_cut() -> None:
    data = encode(photo(), "MPO", save_all=True, append_images=[photo().rotate(180)])
    first = decode_image(data).pixels
    np.testing.assert_array_equal(decode_image(data[: -len(data) // 4]).pixels, first)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("key", [b"text", b"XML:com.adobe.xmp", b"Raw profile type exif"])
def test_no_text_is_expanded_beyond_a_megabyte(kind: bytes, key: bytes) -> None:
    bomb = zlib.compress(bytes(64 * 2**20))
    data = png(before=chunk(kind, key + b"\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + bomb))
    tracemalloc.start()
    try:
        decode_image(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_file_without_metadata_is_passed_on_as_it_is() -> None:
    for data in (encode(photo()), encode(photo(), "BMP"), tiff("II", []), b"", b"\x89PNG", b"\xff\xd8\xff", b"GIF89a"):
        assert without_metadata(data).data is data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF"])
def test_what_is_left_has_nothing_to_take_out(kind: str) -> None:
    bare = without_metadata(encode(photo(), kind)).data
    assert without_metadata(bare).data == bare


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF"])
def test_any_beginning_of_a_file_is_an_image_or_an_error(kind: str) -> None:
    options: dict[str, Any] = {"exif": Image.Exif().tobytes(), "icc_profile": bytes(50)} if kind != "GIF" else {}
    data = encode(photo(), kind, **options)
    for length in range(0, len(data), 3):
        try:
            decode_image(data[:length])
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017 - most beginnings raise, the last ones need not


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def in_xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def png_text(key: str, text: str, *, zipped: bool) -> PngInfo:
    info = PngInfo()
    (info.add_itxt if key.startswith("XML") else info.add_text)(key, text, zip=zipped)
    return info


def raw_profile(orientation: int) -> str:
    block = exif_of(orientation)
    return f"\nexif\n{len(block):8}\n" + "\n".join(block.hex()[i : i + 72] for i in range(0, 2 * len(block), 72)) + "\n"


TURNED: dict[str, Callable[[], bytes]] = {
    "EXIF in a JPEG": lambda: encode(photo(), "JPEG", exif=exif_of(6)),
    "XMP in a JPEG": lambda: encode(photo(), "JPEG", xmp=in_xmp(6)),
    "EXIF behind another block in a JPEG": lambda: (
        encode(photo(), "JPEG")[:2] + segment(0xE1, b"http") + segment(0xE1, exif_of(6)) + encode(photo(), "JPEG")[2:]
    ),
    "EXIF in a PNG": lambda: encode(photo(), exif=exif_of(6)),
    "EXIF behind a PNG's pixels": lambda: png(after=chunk(b"eXIf", exif_of(6)[6:])),
    "EXIF as text in a PNG": lambda: encode(
        photo(), pnginfo=png_text("Raw profile type exif", raw_profile(6), zipped=True)
    ),
    "EXIF as plain text": lambda: encode(
        photo(), pnginfo=png_text("Raw profile type exif", raw_profile(6), zipped=False)
    ),
    "XMP in a PNG": lambda: encode(photo(), pnginfo=png_text("XML:com.adobe.xmp", in_xmp(6).decode(), zipped=False)),
    "packed XMP in a PNG": lambda: encode(
        photo(), pnginfo=png_text("XML:com.adobe.xmp", in_xmp(6).decode(), zipped=True)
    ),
    "EXIF in a WebP": lambda: encode(photo(), "WEBP", exif=exif_of(6)),
    "XMP in a WebP": lambda: encode(photo(), "WEBP", xmp=in_xmp(6)),
    "EXIF in an AVIF": lambda: encode(photo(), "AVIF", exif=exif_of(6)),
    "a TIFF": lambda: encode(photo(), "TIFF", exif=exif_of(6)),
}


@pytest.mark.parametrize("name", TURNED)
def test_orientations_are_kept(name: str) -> None:
    decoded = decode_image(TURNED[name]())
    assert (decoded.original_height, decoded.original_width) == (40, 24)
    assert decoded.pixels.shape == (40, 24, 3)


def test_a_damaged_entry_hides_no_orientation() -> None:
    exif = struct.pack("<2sHIH", b"II", 42, 8, 2) + struct.pack("<HHII", 0x010F, 2, 99, 10**9)
    exif += struct.pack("<HHIHH", 0x0112, 3, 1, 8, 0)
    data = encode(photo(), "JPEG")
    assert decode_image(data[:2] + segment(0xE1, b"Exif\0\0" + exif) + data[2:]).pixels.shape == (40, 24, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "the header of the PNG can't be read: broken PNG file (chunk …)"),
        (
            png().replace(b"IHDR", b"IHDX"),
            "the header of the PNG can't be read: broken PNG file (bad header checksum in …)",
        ),
        (encode(photo(), "TIFF")[:12], "the header of the TIFF can't be read: Missing dimensions"),
        (encode(photo(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "cannot handle 12-bit layers"),
        (b"BM" + bytes(60), "Unsupported BMP header type (0)"),
        (b"P6\nsecret 4 255\n", "the header can't be read"),
    ],
)
def test_an_error_keeps_its_reason_and_no_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert reason in str(caught.value)
    assert "b'" not in str(caught.value)
    assert "secret" not in str(caught.value)
