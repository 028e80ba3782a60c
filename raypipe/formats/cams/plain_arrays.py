"""Maps out of pickled NumPy files, in a process of their own.

    python -m raypipe.formats.cams.plain_arrays < files > answers

psa and irn save maps as `.npy` files of a dictionary, hence as pickles, which could run code. This reader knows no more
than arrays, dictionaries, numbers and texts, and tensors through PyTorch's own safe reader; it runs where nothing is
lost if a file makes it crash, with bounded memory. Standard input holds files, each after its length (8 bytes,
big-endian); for each the output holds "y" and an `.npz`, or "n" and the reason, after a length too.
"""

import io
import pickle
import resource
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from raypipe.schema import MAX_CLASSES

MAX_BYTES = 4 * 2**30
"""Memory of the process."""

LENGTH = struct.Struct(">cQ")
"""Before an answer: whether it is one, and its length."""

_PLAIN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # What arrays are made by, under the names of NumPy 1 and 2.
    **{
        (f"numpy.{core}.multiarray", name): getattr(import_module("numpy._core.multiarray"), name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}


def _storage(data: bytes) -> object:
    from raypipe.tensors import load_tensors  # torch takes seconds, and few files need it

    return load_tensors(data, source="a tensor")


class _PlainUnpickler(pickle.Unpickler):
    """Finds nothing but what arrays and tensors are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            import torch

            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise ValueError(f"it holds {module}.{name}, which could run code: only plain arrays are read")


def read_maps(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class ids (K,), from 1, and maps (K, h, w) of a file of psa's or irn's.

    psa's dictionary has a map for each class, counted from 0; irn's has `keys`, `high_res` and `cam`, of which the
    first two are taken.

    Raises:
        ValueError: if it is no such file, or holds what could run code.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
    if read_header is None:
        raise ValueError(f"it is a NumPy file of version {version}")
    shape, _, dtype = read_header(file)
    if dtype != np.dtype(object) or shape != ():
        raise ValueError(f"it is an array of {dtype}, {shape}, needed is a saved dictionary of maps")
    array = _PlainUnpickler(file).load()
    maps = array.item() if isinstance(array, np.ndarray) and array.shape == () else None
    if not isinstance(maps, dict):
        raise ValueError("it holds no dictionary")  # noqa: TRY004 - the file's mistake
    if "keys" in maps:
        keys, values = np.asarray(maps["keys"]), np.asarray(maps.get("high_res"))
    else:
        keys, values = np.array(list(maps)), np.array(list(maps.values()))
    if len(maps) == 0:
        keys, values = np.zeros(0, np.int64), np.zeros((0, 1, 1), np.float32)
    if keys.dtype.kind not in "iu" or keys.ndim != 1 or values.dtype.kind != "f" or values.ndim != 3:
        raise ValueError(f"its classes are {keys.dtype} {keys.shape}, its maps {values.dtype} {values.shape}")
    if len(keys) != len(values) or len(set(keys.tolist())) < len(keys):
        raise ValueError(f"it has {len(values)} maps of the classes {keys.tolist()}")
    if not np.isfinite(values).all() or (keys < 0).any() or (keys >= MAX_CLASSES).any():
        raise ValueError(f"its maps aren't finite, or its classes {keys.tolist()} not in 0..{MAX_CLASSES - 1}")
    order = np.argsort(keys)
    return (keys[order] + 1).astype(np.uint8), values[order].astype(np.float32)


def answer(data: bytes) -> tuple[bytes, bytes]:
    """What stands in the output for a file: "y" and the maps, or "n" and why not."""
    try:
        class_ids, cam = read_maps(data)
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything; the reason goes out
        return b"n", f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, class_ids=class_ids, cam=cam)
    return b"y", buffer.getvalue()


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answers until the input ends."""
    while head := source.read(8):
        kind, content = answer(source.read(int.from_bytes(head, "big")))
        target.write(LENGTH.pack(kind, len(content)) + content)
        target.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)
