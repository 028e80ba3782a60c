"""How arrays travel in columns: raw little-endian bytes beside their sizes."""

import numpy as np
from numpy.typing import NDArray


def encode_cam(cam: NDArray[np.float32]) -> bytes:
    """float16 bytes of maps (K, h, w) in [0, 1]; the rounding is at most 2.5e-4."""
    return cam.astype("<f2").tobytes()


def decode_cam(data: bytes, *, height: int, width: int) -> NDArray[np.float32]:
    """Maps (K, height, width) from `encode_cam`'s bytes; K follows from the length."""
    return np.frombuffer(data, dtype="<f2").reshape(-1, height, width).astype(np.float32)


def encode_scores(scores: NDArray[np.float32]) -> bytes:
    """float32 bytes of scores (1 + K, h, w)."""
    return scores.astype("<f4").tobytes()


def decode_scores(data: bytes, *, height: int, width: int) -> NDArray[np.float32]:
    """Scores (1 + K, height, width) from `encode_scores`'s bytes."""
    return np.frombuffer(data, dtype="<f4").reshape(-1, height, width).copy()
