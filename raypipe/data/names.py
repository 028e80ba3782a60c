"""File names and numbers for ids of any form."""

import hashlib
import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_NAMES_AT_A_TIME = 2**16
"""Names that are Python strings at a time: as such they take several times their bytes."""


def file_stem(image_id: str) -> str:
    """Returns a file name without ending for an id: the id if that is safe, else its safe part and a digest.

    The name never leads out of its folder, and no two ids have the same name.
    """
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", image_id):
        return image_id
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", image_id).strip("-")[:60]
    return f"{safe}~{hashlib.sha256(image_id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def hash_names(names: pa.Array | pa.ChunkedArray, salt: str) -> NDArray[np.uint64]:
    """Hashes each name with a salt: numbers that are as good as random, and the same in every process."""
    prefix = f"{salt}/".encode()
    hashes = np.empty(len(names), np.uint64)
    for start in range(0, len(names), _NAMES_AT_A_TIME):
        some = names.slice(start, _NAMES_AT_A_TIME).cast(pa.binary()).to_pylist()
        digests = b"".join(hashlib.blake2b(prefix + name, digest_size=8).digest() for name in some)
        hashes[start : start + len(some)] = np.frombuffer(digests, dtype=">u8")
    return hashes
