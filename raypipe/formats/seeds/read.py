"""Reads maps that another program made: Parquet files with a row for each image, or an `.npz` for each.

The contract is in docs/seeds.md. A row that breaks it is left out with a reason, and refuses no other one.
"""

import hashlib
import io
import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.given_seeds import MOST_CELLS, check_seed, seed_columns
from raypipe.data.shards import is_damage
from raypipe.faults import in_words
from raypipe.formats.listing import without_suffix
from raypipe.uri import absolute, name_of, relative

COLUMNS = ["image_id", "classes", "height", "width", "maps"]
"""Columns of the Parquet form."""

SUFFIXES = (".npz", ".parquet")

SAVE_LINE = "np.savez(image_id + '.npz', classes=[NAMES[c] for c in maps], maps=list(maps.values()))"
"""Turns psa's dictionary `maps` of an image, whose classes count from 0, into the `.npz` form."""

_WAY_OUT = f"; pickles are never read, since they may run code: where they were made, save the maps by {SAVE_LINE}"

_ROWS_AT_A_TIME = 8
"""Of a Parquet file: one may hold many megabytes."""

_MOST_BYTES = 8 * MOST_CELLS

_DAMAGE = (
    *(ValueError, KeyError, EOFError, MemoryError, OSError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    RuntimeError,  # zipfile's, of an archive with a password
    tokenize.TokenError,  # NumPy's, of an array's head
)
"""What is raised of an `.npz` whose bytes were read, and which holds no arrays all the same."""


@dataclass(frozen=True)
class FoundSeed:
    """What a source holds of an image."""

    image_id: str
    columns: dict[str, Any] | None
    """As of `schema.GIVEN_SEEDS`; None where the row breaks the contract."""
    digest: str
    """16 hex digits of the content, or of the reason."""
    reason: str | None = None


class UnreadableSource(ValueError):  # noqa: N818 - a state of a file
    """A file holds no maps at all."""


def find_seed_files(source: str) -> list[str]:
    """Returns the `.npz` and Parquet files of a folder, without those of the folders in it; or the one file.

    Raises:
        ValueError: there are none.
    """
    here = absolute(source)
    names = [uri for uri in storage.list_files(here) if "/" not in (relative(uri, here) or "")]
    if uris := [uri for uri in names if uri.endswith(SUFFIXES)]:
        return uris
    pickles = any(uri.endswith((".npy", ".pkl")) for uri in names)
    raise ValueError(f"expected .npz or .parquet files in {source}, got none" + (_WAY_OUT if pickles else ""))


def read_seeds(uri: str) -> Iterator[FoundSeed]:
    """Yields what a file holds, image by image.

    Raises:
        UnreadableSource: it is a Parquet file, and damaged or another table.
    """
    if uri.endswith(".npz"):
        yield _read_npz(uri)
        return
    try:
        yield from _read_parquet(uri)
    except (ValueError, pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        raise UnreadableSource(f"{uri} can't be read as maps: {error}") from error


def _read_npz(uri: str) -> FoundSeed:
    content = storage.read_bytes(uri)
    try:
        return _parse_npz(without_suffix(name_of(uri)), content)
    except _DAMAGE as error:
        return _left_out(without_suffix(name_of(uri)), f"{name_of(uri)}: {in_words(error)}")


def _parse_npz(image_id: str, content: bytes) -> FoundSeed:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if (size := sum(member.file_size for member in archive.infolist())) > _MOST_BYTES:
            raise ValueError(f"expected at most {_MOST_BYTES:,} bytes, it unpacks to {size:,}")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        if missing := [name for name in ("classes", "maps") if name not in file.files]:
            raise ValueError(f"expected the arrays classes and maps, {missing} are missing: {SAVE_LINE}")
        image_id = str(file["image_id"]) if "image_id" in file.files else image_id
        classes, maps = _array(file, "classes"), _array(file, "maps")
    return _found(image_id, classes.tolist() if classes.ndim == 1 else [classes.tolist()], maps)


def _array(file: Any, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = file[name]
    except ValueError as error:  # an array of Python objects, which only a pickle can hold
        raise ValueError(f"{error}{_WAY_OUT}") from error
    return array


def _read_parquet(uri: str) -> Iterator[FoundSeed]:
    filesystem, path = storage.arrow_filesystem(uri)
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        if missing := sorted(set(COLUMNS) - set(file.schema_arrow.names)):
            raise ValueError(f"expected the columns {COLUMNS}, {missing} are missing")
        for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=COLUMNS):
            for number in range(batch.num_rows):
                image_id = batch["image_id"][number].as_py()
                yield _read_row("" if image_id is None else str(image_id), batch, number)


def _read_row(image_id: str, batch: pa.RecordBatch, number: int) -> FoundSeed:
    try:
        return _parse_row(image_id, batch, number)
    except (ValueError, TypeError) as error:
        return _left_out(image_id, in_words(error))


def _parse_row(image_id: str, batch: pa.RecordBatch, number: int) -> FoundSeed:
    classes, height, width = (batch[name][number].as_py() for name in COLUMNS[1:-1])
    if not image_id or None in (classes, height, width) or not batch["maps"][number].is_valid:
        raise ValueError(f"expected a value in each of {COLUMNS}, got null or an empty one")
    values = batch["maps"][number].values
    if not pa.types.is_floating(values.type) and len(values):
        raise ValueError(f"expected floats as maps, got {values.type}")
    shape = (len(classes), height, width)
    if len(values) != math.prod(shape):
        raise ValueError(f"maps has {len(values)} values, expected (K, height, width) = {shape}")
    array = pc.fill_null(values.cast(pa.float32()), float("nan")).to_numpy(zero_copy_only=False)  # null: as NaN
    return _found(image_id, classes, array.reshape(shape))


def _found(image_id: str, classes: Sequence[Any], maps: NDArray[Any]) -> FoundSeed:
    columns = seed_columns(classes, check_seed(classes, maps))
    head = json.dumps([columns["seed_classes"], columns["seed_height"], columns["seed_width"]])
    return FoundSeed(image_id, columns, _digest(head.encode(), columns["seed"]))


def _left_out(image_id: str, reason: str) -> FoundSeed:
    return FoundSeed(image_id, None, _digest(reason.encode()), reason[:1000])


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()
