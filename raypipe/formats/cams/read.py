"""Imports class activation maps that another program computed, for `checkpoints.cams`.

The contract is in docs/file-formats.md: a folder of `<image_id>.npz`, or of Parquet files with a row for each image.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from raypipe import storage
from raypipe.data.names import file_stem
from raypipe.formats.listing import without_suffix
from raypipe.schema import MAX_CLASSES
from raypipe.uri import absolute, name_of, relative

INDEX_FILE = "cams.json"

COLUMNS = ["image_id", "class_ids", "height", "width", "cam"]
"""Columns of the Parquet form."""

NUM_THREADS = 16

SAVE_LINE = "np.savez(image_id + '.npz', class_ids=[c + 1 for c in maps], cam=list(maps.values()))"
"""Turns psa's dictionary `maps` of an image, whose classes count from 0, into the `.npz` form."""

_WAY_OUT = f"; pickles are never read, since they may run code: where they were made, save the maps by {SAVE_LINE}"

Maps = tuple[str, NDArray[np.uint8], NDArray[np.float32]]
"""image_id, class ids (K,) from 1, and maps (K, H, W)."""


def import_cams(folder: str, out: str) -> int:
    """Writes the maps of a folder as one `.npz` for each image, and an index with a digest of all of them.

    Args:
        folder: URI of a folder that holds `<image_id>.npz` or Parquet files; the folders in it are left out.
        out: URI of the folder to write into. Its `cams.json` is written last, so a folder that has one is complete.

    Returns:
        The number of images.

    Raises:
        ValueError: the folder holds no such files, or one of them breaks the contract. The others are written then.
    """
    here = absolute(folder)
    names = [uri for uri in storage.list_files(here) if "/" not in (relative(uri, here) or "")]
    uris = [uri for uri in names if uri.endswith((".npz", ".parquet"))]
    if not uris:
        pickles = any(uri.endswith((".npy", ".pkl")) for uri in names)
        raise ValueError(f"expected .npz or .parquet files in {folder}, got none" + (_WAY_OUT if pickles else ""))
    index_uri = storage.join(out, INDEX_FILE)
    if storage.exists(index_uri):
        storage.delete(index_uri)
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for written in threads.map(lambda uri: _convert(uri, out), uris):
            if both := digests.keys() & written.keys():
                raise ValueError(f"{folder} has several maps of the image whose file is {min(both)}: keep one")
            digests |= written
    index = {"num_files": len(digests), "digest": storage.digest(digests)}
    storage.write_bytes_atomic(index_uri, json.dumps(index, indent=1).encode())
    return len(digests)


def read_cams_digest(folder: str) -> str:
    """Returns the digest of the maps in a folder that `import_cams` wrote.

    Raises:
        ValueError: it is no such folder, or its import wasn't finished.
    """
    uri = storage.join(folder, INDEX_FILE)
    if not storage.exists(uri):
        raise ValueError(f"{folder} has no {INDEX_FILE}: `raypipe import cams FOLDER {folder}` writes such a folder")
    return str(json.loads(storage.read_bytes(uri))["digest"])


def _convert(uri: str, out: str) -> dict[str, str]:
    """Writes the images of one file; returns the digest of each file that was written, by its name."""
    digests = {}
    try:
        for image_id, class_ids, cam in _read_parquet(uri) if uri.endswith(".parquet") else _read_npz(uri):
            buffer = io.BytesIO()
            np.savez_compressed(buffer, class_ids=class_ids, cam=cam)
            name = f"{file_stem(image_id)}.npz"
            digests[name] = storage.bytes_digest(buffer.getvalue())
            storage.write_bytes_atomic(storage.join(out, name), buffer.getvalue())
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise ValueError(f"{uri} can't be read as maps: {error}") from error
    return digests


def _read_npz(uri: str) -> Iterator[Maps]:
    image_id = without_suffix(name_of(uri))
    with np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False) as file:
        try:
            class_ids, cam = file["class_ids"], file["cam"]
        except ValueError as error:  # an array of Python objects, which only a pickle can hold
            raise ValueError(f"{error}{_WAY_OUT}") from error
    yield image_id, *_checked(class_ids, cam)


def _read_parquet(uri: str) -> Iterator[Maps]:
    filesystem, path = storage.arrow_filesystem(uri)
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        if missing := sorted(set(COLUMNS) - set(file.schema_arrow.names)):
            raise ValueError(f"expected the columns {COLUMNS}, {missing} are missing")
        seen: set[str] = set()
        for batch in file.iter_batches(batch_size=1, columns=COLUMNS):  # a row may hold many megabytes
            image_id, class_ids, height, width = (batch[name][0].as_py() for name in COLUMNS[:-1])
            values = batch["cam"][0].values
            if None in (image_id, class_ids, height, width, values):
                raise ValueError(f"expected a value in each of {COLUMNS}, got null in the row of {image_id!r}")
            if image_id in seen:
                raise ValueError(f"it has two rows for {image_id!r}")
            seen.add(image_id)
            shape = (len(class_ids), height, width)
            if len(values) != math.prod(shape):
                raise ValueError(
                    f"the cam of {image_id!r} has {len(values)} values, expected (K, height, width) = {shape}"
                )
            yield image_id, *_checked(class_ids, values.to_numpy(zero_copy_only=False).reshape(shape))


def _checked(class_ids: ArrayLike, cam: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Returns ids and maps in the order of the ids; raises ValueError where they break the contract."""
    ids, maps = np.asarray(class_ids), np.asarray(cam)
    if ids.size == 0:
        ids, maps = np.zeros(0, np.uint8), np.zeros((0, 1, 1), np.float32)
    if ids.dtype.kind not in "iu" or ids.ndim != 1 or maps.dtype.kind != "f" or maps.ndim != 3:
        raise ValueError(
            f"expected integer class_ids (K,) and float cam (K, H, W), got {ids.dtype} {ids.shape} and "
            f"{maps.dtype} {maps.shape}"
        )
    if len(ids) != len(maps) or len(set(ids.tolist())) < len(ids):
        raise ValueError(f"expected one map for each class, got {len(maps)} maps for the class ids {ids.tolist()}")
    if (ids < 1).any() or (ids > MAX_CLASSES).any():
        raise ValueError(f"expected class ids in 1..{MAX_CLASSES}, got {ids.tolist()}")
    if not np.isfinite(maps).all():
        raise ValueError("expected finite maps, got infinity or NaN")
    order = np.argsort(ids)
    return ids[order].astype(np.uint8), maps[order].astype(np.float32)
