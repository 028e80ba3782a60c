"""Finds the members of a tar: by its index file, or by one pass over it."""

import logging
import tarfile
from collections.abc import Collection, Iterator
from typing import NamedTuple

from raypipe import storage
from raypipe.containers.place import member_uri
from raypipe.formats.containers import Container

_INDEX_VERSION = "v1.2"
"""Of the index files that DALI's wds2idx writes: each line has ending, offset, size and name of a sample's members."""
_PIECE = 4 * 2**20
"""Bytes of a request: one has the headers, and the contents, of many small members, and large members are passed by."""
_MEMBERS_PER_CALL = 1000

log = logging.getLogger(__name__)


class TarMember(NamedTuple):
    """A file in a tar, such as `train/n01/7.seg.png`."""

    key: str
    """What the members of a sample share: the path up to the first dot of the file's name, `train/n01/7`."""
    ending: str
    """The rest after that dot, in small letters: `seg.png`."""
    offset: int
    size: int
    content: bytes | None
    """Only of the endings that were asked for."""


def find_members(container: Container, *, contents_of: Collection[str]) -> Iterator[TarMember]:
    """Yields a tar's members in their order, without hidden files and those without ending.

    Args:
        container: the tar.
        contents_of: endings of members that are read, too.

    Raises:
        ValueError: the file is no tar, is compressed, or is damaged.
    """
    if container.index is not None:
        members = _read_index(container.index)
        if members is not None:
            return _with_contents(container, members, contents_of)
        log.warning("%s isn't an index of version %s: the tar itself is read", container.index, _INDEX_VERSION)
    return _read_tar(container, contents_of)


def split_name(name: str) -> tuple[str, str] | None:
    """Returns key and ending of a member's name; None for a hidden file, or without ending."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return (f"{folder}{slash}{stem}".removeprefix("./"), ending.lower()) if stem and ending else None


def _read_tar(container: Container, contents_of: Collection[str]) -> Iterator[TarMember]:
    fs, path = storage.filesystem(container.uri)
    try:
        with (
            fs.open(path, "rb", block_size=_PIECE, cache_type="readahead") as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for info in tar:
                named = split_name(info.name) if info.isreg() and not info.issparse() else None
                if named is None:
                    continue
                member = tar.extractfile(info) if named[1] in contents_of else None
                yield TarMember(*named, info.offset_data, info.size, member.read() if member else None)
    except tarfile.TarError as error:
        raise ValueError(
            f"{container.uri} is no tar, or it is compressed or damaged ({error}): parts of a tar can be read only as "
            "long as it is neither"
        ) from error


def _read_index(uri: str) -> list[TarMember] | None:
    """The members that an index file names; None for another kind of index."""
    try:
        head, *lines = storage.read_bytes(uri).decode().splitlines()
    except (UnicodeDecodeError, ValueError):
        return None
    version, _, count = head.partition(" ")
    if version != _INDEX_VERSION or not count.strip().isdecimal() or len(lines) != int(count):
        return None
    members = []
    for line in lines:
        words = line.split(" ")
        for ending, offset, size, name in zip(*(words[start::4] for start in range(4)), strict=False):
            named = split_name(name)
            # A name with spaces can't be told from the next member: such an index is of no use.
            if not name.endswith(ending) or not offset.isdecimal() or not size.isdecimal() or len(words) % 4:
                return None
            if named is not None:
                members.append(TarMember(*named, int(offset), int(size), None))
    return members


def _with_contents(container: Container, members: list[TarMember], contents_of: Collection[str]) -> Iterator[TarMember]:
    for start in range(0, len(members), _MEMBERS_PER_CALL):
        some = members[start : start + _MEMBERS_PER_CALL]
        uris = [member_uri(container.uri, member.offset, member.size) for member in some]
        contents = storage.read_many(
            uri for uri, member in zip(uris, some, strict=True) if member.ending in contents_of
        )
        for uri, member in zip(uris, some, strict=True):
            content = contents.get(uri)
            if isinstance(content, Exception):
                raise content
            yield member._replace(content=content)
