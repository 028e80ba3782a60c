"""HEIC, as phones write it, where its reader is installed."""

import io

import numpy as np
import pytest
from PIL import Image

from raypipe.data.content import HEAD, image_kind, what_helps
from raypipe.data.images import decode_image

pillow_heif = pytest.importorskip("pillow_heif")


def test_a_photograph_of_a_phone() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = (200, 40, 40)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="HEIF", quality=95)
    data = buffer.getvalue()
    assert image_kind(data[:HEAD]) == "HEIC"
    assert what_helps("HEIC") is None
    decoded = decode_image(data)
    assert (decoded.original_height, decoded.original_width) == (64, 96)
    np.testing.assert_allclose(decoded.pixels[32, 20], (200, 40, 40), atol=12)
