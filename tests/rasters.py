"""TIFF files for tests."""

import io
from typing import Any

from numpy.typing import NDArray
from tifffile import imwrite

PLACE: list[tuple[int, int, int, Any, bool]] = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 600000.0, 5100000.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1026, 34737, 20, 0, 3072, 0, 1, 32633), True),
    (34737, 2, 0, "WGS 84 / UTM 33N|", True),
]
"""Tags of a GeoTIFF: 10 m pixels in UTM zone 33."""


def nodata(value: float | str) -> tuple[int, int, int, str, bool]:
    return 42113, 2, 0, str(value), True


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    """A TIFF file of (H, W) or (H, W, bands) values, in tiles of 64 unless `rowsperstrip` is given."""
    defaults: dict[str, Any] = {"metadata": None}
    if "rowsperstrip" not in options:
        defaults["tile"] = (64, 64)
    if values.ndim == 3 and "planarconfig" not in options:
        defaults |= {"photometric": "minisblack", "planarconfig": "contig"}
    elif values.ndim == 2:
        defaults["photometric"] = "minisblack"
    buffer = io.BytesIO()
    imwrite(buffer, values, **{**defaults, **options})
    return buffer.getvalue()
