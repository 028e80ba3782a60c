"""What the importers of containers share: they find them, read one at a time, and join what was found.

Conventions: an `image_id` that the data don't give is the container's name and the image's place in it, so that it
stays the same when containers are added. A container's name is its path below the folder that was asked for, without
ending.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from raypipe import schema, storage
from raypipe.containers.cells import KEPT
from raypipe.formats.draft import NUMBER, Draft
from raypipe.uri import absolute, name_of, parent, relative, suffix_of

_INDEX = ".idx"
"""Ending of a file that says what is in a container, beside it; only the importer of tars has a use for it."""
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PATTERN = re.compile(r"[*?[]|" + _NUMBERS.pattern)
_NUMBERED = re.compile(r"(.+?)[-_.]\d+(?:-of-\d+)?")


class SplitsFrom(StrEnum):
    """What says a container's split."""

    name = "name"
    """Its file name, as in `train-00000-of-00004`."""
    folder = "folder"
    """The first folder below the one that was asked for."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A file that holds images."""

    uri: str
    name: str
    """Unique among the containers."""
    split: str | None = None
    """Of all images in it."""
    index: str | None = None
    """URI of the file that says what is in it, if there is one."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an importer has found in one container."""

    rows: pa.Table
    """Rows of a manifest."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of their ids, if the container has such a list."""
    num_left_out: int = 0
    """Samples without an image."""
    largest_read: int = 0
    """Bytes that have to be read together with an image; 0 where an image can be read alone."""


def find_containers(
    source: str, *, suffix: str, split: str | None = None, splits_from: SplitsFrom | None = None
) -> list[Container]:
    """Returns the containers that a folder holds, that a pattern matches, or that is named, in order.

    Args:
        source: URI of a folder, of a container, or with `*`, `?`, `[…]` or WebDataset's `{0000..0099}`.
        suffix: ending of the containers, such as ".tar".
        split: the split of all containers.
        splits_from: what says the split of each container instead.

    Raises:
        FileNotFoundError: there are no such containers.
        ValueError: a container's name or folder says no split, or tars are compressed.
    """
    if match := _PATTERN.search(source):
        folder = parent(absolute(source[: match.start()] + "x"))
        uris = [full for each in _expand(source) for full in _glob(each)]
    elif suffix_of(absolute(source)) == suffix:
        container = absolute(source)
        beside = container.removesuffix(suffix) + _INDEX
        folder, uris = parent(container), [container, *([beside] if storage.exists(beside) else [])]
    else:
        folder, uris = absolute(source), storage.list_files(source)
    found = [uri for uri in uris if uri.endswith(suffix)]
    if not found:
        if packed := [uri for uri in uris if uri.endswith((f"{suffix}.gz", f"{suffix}.zst", f"{suffix}.bz2", ".tgz"))]:
            raise ValueError(
                f"{packed[0]} is compressed, so that no part of it can be read alone: unpack it to {suffix}"
            )
        raise FileNotFoundError(f"no {suffix} files: {source}. Name a folder, a file or a pattern such as a-*{suffix}")
    indexes = {uri.removesuffix(_INDEX): uri for uri in uris if uri.endswith(_INDEX)}
    containers = []
    for uri in found:
        name = (relative(uri, folder) or name_of(uri)).removesuffix(suffix)
        index = indexes.get(uri.removesuffix(suffix)) or indexes.get(uri)
        own = _split_of(name, splits_from) if splits_from else split
        containers.append(Container(uri=uri, name=name, split=own, index=index))
    return containers


def join_found(parts: Iterable[Found], source: str) -> Draft:
    """Joins what was found in the containers.

    Args:
        parts: of the containers, in order.
        source: what was read, for messages.

    Raises:
        ValueError: there are no images; or containers have different lists of classes.
    """
    tables, own, left_out, largest = [], None, 0, 0
    for part in parts:
        tables.append(part.rows)
        left_out += part.num_left_out
        largest = max(largest, part.largest_read)
        if own is not None and part.classes is not None and part.classes != own:
            raise ValueError(f"containers have different lists of classes: {own[:5]}, … and {part.classes[:5]}, …")
        own = own or part.classes
    rows = pa.concat_tables(tables)
    notes = [f"{left_out:,} samples without an image left out"] if left_out else []
    if largest > KEPT:
        notes.append(
            f"row groups have up to {largest >> 20} MiB of images: above {KEPT >> 20} MiB they are read anew for each "
            "block of rows. Files with smaller row groups are read once"
        )
    if rows.num_rows == 0:
        raise ValueError("the containers hold no images: look at the endings of their members")
    return Draft(
        table=rows.append_column(NUMBER, pa.array(range(rows.num_rows), pa.int64())),
        source=source,
        root=source,
        classes=own,
        classes_from="the containers",
        are_there=True,
        notes=notes,
    )


def manifest_rows(rows: Sequence[Mapping[str, object]], container: Container) -> pa.Table:
    """Returns a container's rows as a table of a manifest."""
    return pa.Table.from_pylist([{**row, "split": container.split} for row in rows], schema=schema.MANIFEST)


def _expand(pattern: str) -> list[str]:
    """The pattern with each number of `{0000..0099}`, as many digits as the first has."""
    match = _NUMBERS.search(pattern)
    if match is None:
        return [pattern]
    first, last = match[1], match[2]
    numbers = range(int(first), int(last) + 1)
    start, end = pattern[: match.start()], pattern[match.end() :]
    return [full for number in numbers for full in _expand(f"{start}{number:0{len(first)}}{end}")]


def _glob(pattern: str) -> list[str]:
    if not _PATTERN.search(pattern):
        return [absolute(pattern)]
    return storage.glob(pattern)


def _split_of(name: str, splits_from: SplitsFrom) -> str:
    if splits_from == SplitsFrom.folder:
        folder, _, rest = name.partition("/")
        if not rest:
            raise ValueError(f"{name!r} lies in no folder that says its split; name the folder above, or give --split")
        return folder
    match = _NUMBERED.fullmatch(name.rpartition("/")[2])
    if match is None:
        raise ValueError(f"the name {name!r} says no split; expected one as in train-00000-of-00004, or give --split")
    return match[1]
