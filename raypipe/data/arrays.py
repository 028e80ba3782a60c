"""Encodes arrays as little-endian bytes for table columns; their sizes are stored in columns of their own."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def encode_cam(cam: NDArray[np.float32]) -> bytes:
    """Returns the float16 bytes of maps (K, h, w) in [0, 1]; rounding changes them by at most 2.5e-4."""
    return cam.astype("<f2").tobytes()


def decode_cam(data: bytes, *, height: int, width: int) -> NDArray[np.float32]:
    """Returns the maps (K, height, width) of `encode_cam`'s bytes; K follows from their number."""
    return np.frombuffer(data, dtype="<f2").reshape(-1, height, width).astype(np.float32)


def cam_view(data: bytes, *, height: int, width: int) -> NDArray[np.float16]:
    """Returns the maps of `encode_cam`'s bytes as they are, without taking memory for them."""
    return np.frombuffer(data, dtype="<f2").reshape(-1, height, width)


def encode_scores(scores: NDArray[np.float32]) -> bytes:
    """Returns the float32 bytes of scores (1 + K, h, w)."""
    return scores.astype("<f4").tobytes()


def decode_scores(data: bytes, *, height: int, width: int) -> NDArray[np.float32]:
    """Returns the scores (1 + K, height, width) of `encode_scores`'s bytes."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, height, width).copy()


def encode_labels(labels: NDArray[np.uint8]) -> bytes:
    """Returns the LZ4 bytes of class ids (H, W): quick to pack, for columns that no shard holds."""
    packed: bytes = pa.compress(np.ascontiguousarray(labels), codec="lz4", asbytes=True)
    return packed


def decode_labels(data: bytes, *, height: int, width: int) -> NDArray[np.uint8]:
    """Returns the class ids (height, width) of `encode_labels`'s bytes."""
    unpacked = pa.decompress(data, decompressed_size=height * width, codec="lz4")
    return np.frombuffer(unpacked, dtype=np.uint8).reshape(height, width)
