"""Reads members of containers by their place, such as images in a tar, with far fewer requests than members.

Members that lie close together come by one request. Where a process reads small members one call after another (blocks
of a stream), a call reads on, and what it has read ahead answers the next calls: the fetch's grain isn't the block's.

Memory of a process: at most `CONTAINERS` × `READ_AHEAD` (32 MiB) read ahead, and, while a call lasts, twice what it
asks for.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import fsspec

from raypipe.containers.fetch import Range, fetch_ranges
from raypipe.containers.place import Member

SMALL_GAP = 64 * 2**10
"""So many bytes between two members are always read with them: that takes less time than a request."""
LARGEST_GAP = 256 * 2**10
"""More are read as long as they are at most a fifth of the members' bytes."""
LARGEST_REQUEST = 32 * 2**20
"""A request joins members up to so many bytes; a member is never cut."""
LARGEST_MEMBER = 2**30
"""No image is larger: a longer member is refused before memory is taken for it."""
READ_AHEAD = 4 * 2**20
"""Bytes of a request that reads on. An object store sends them in 50 ms, about twice what it takes to answer at all."""
NEXT_CALL_GAP = 2**20
"""A call follows the one before if it starts at most so far behind its end: other processes read what is between. With
more of them than fit in between, reading on would cost more time than the requests that it saves."""
CONTAINERS = 8
"""Containers of which a process keeps what it has read ahead, those used last."""


@dataclass
class _Ahead:
    """What a process has read of a container."""

    position: int = 0
    """Where the last call's members end."""
    start: int = 0
    data: bytes = b""
    """Read ahead, from `start`."""

    def take(self, member: Member) -> bytes | None:
        """The member's bytes, if they were read ahead."""
        if member.offset < self.start or member.end > self.start + len(self.data):
            return None
        return self.data[member.offset - self.start : member.end - self.start]

    def keep(self, start: int, data: bytes) -> None:
        """Takes what was read ahead in the place of what was read before."""
        self.start, self.data = start, data


@dataclass
class _Request:
    """A range with the members that it was asked for."""

    path: str
    start: int
    end: int
    used: int
    """Bytes of members."""
    members: dict[str, Member] = field(default_factory=dict)


_ahead: OrderedDict[tuple[fsspec.AbstractFileSystem, str], _Ahead] = OrderedDict()
_lock = Lock()


def read_members(
    fs: fsspec.AbstractFileSystem, wanted: Mapping[str, tuple[str, Member]]
) -> dict[str, bytes | Exception]:
    """Returns each member's bytes, or why there are none.

    Args:
        fs: where the containers lie.
        wanted: the container's path and the place in it, by any name, which the results have, too.
    """
    found: dict[str, bytes | Exception] = {}
    missing: dict[str, tuple[str, Member]] = {}
    for name, (path, member) in wanted.items():
        if member.length > LARGEST_MEMBER:
            found[name] = ValueError(
                f"{path}: a member of {member.length} bytes at {member.offset}; images have at most {LARGEST_MEMBER}"
            )
        else:
            missing[name] = (path, member)
    if "file" in fs.protocol:  # the operating system reads ahead by itself
        return found | _read(fs, _join(missing))[0]
    with _lock:
        for name, (path, member) in list(missing.items()):
            state = _ahead.get((fs, path))
            if state is not None and (content := state.take(member)) is not None:
                found[name] = content
                del missing[name]
        requests = _join(missing)
        if extended := _extend(fs, requests, wanted):
            # Within the lock, lest another thread reads the same ahead meanwhile.
            contents, raw = _read(fs, requests)
            for request, data in zip(requests, raw, strict=True):
                if request.path in extended and isinstance(data, bytes):
                    _ahead[fs, request.path].keep(request.start, data)
            return found | contents
    return found | _read(fs, requests)[0]


def _join(wanted: Mapping[str, tuple[str, Member]]) -> list[_Request]:
    """Joins what lies close together."""
    requests: list[_Request] = []
    for name, (path, member) in sorted(wanted.items(), key=lambda item: (item[1][0], item[1][1].offset)):
        last = requests[-1] if requests and requests[-1].path == path else None
        if last is None or not _belongs(last, member):
            last = _Request(path, member.offset, member.offset, 0)
            requests.append(last)
        last.used += max(0, member.end - max(last.end, member.offset))
        last.end = max(last.end, member.end)
        last.members[name] = member
    return requests


def _belongs(request: _Request, member: Member) -> bool:
    gap = max(0, member.offset - request.end)
    unused = request.end - request.start - request.used + gap
    fits = member.end - request.start <= LARGEST_REQUEST
    return fits and (gap <= SMALL_GAP or (gap <= LARGEST_GAP and unused <= 0.2 * (request.used + member.length)))


def _extend(
    fs: fsspec.AbstractFileSystem, requests: Sequence[_Request], wanted: Mapping[str, tuple[str, Member]]
) -> set[str]:
    """Makes requests longer that go on where a process has been reading, and notes where it is now."""
    extended: set[str] = set()
    spans: dict[str, list[Member]] = {}
    for path, member in wanted.values():
        spans.setdefault(path, []).append(member)
    for path, members in spans.items():
        state = _ahead.setdefault((fs, path), _Ahead())
        _ahead.move_to_end((fs, path))
        first, end = min(member.offset for member in members), max(member.end for member in members)
        follows = 0 <= first - state.position <= NEXT_CALL_GAP
        own = [request for request in requests if request.path == path]
        if follows and len(own) == 1 and end - first <= READ_AHEAD // 4 and len(spans) <= CONTAINERS:
            own[0].end = max(own[0].end, own[0].start + READ_AHEAD)
            extended.add(path)
        state.position = end
    while len(_ahead) > CONTAINERS:
        _ahead.popitem(last=False)
    return extended


def _read(
    fs: fsspec.AbstractFileSystem, requests: Sequence[_Request]
) -> tuple[dict[str, bytes | Exception], list[bytes | Exception]]:
    """The members' bytes, and those of the requests."""
    raw = fetch_ranges(fs, [Range(request.path, request.start, request.end) for request in requests])
    found: dict[str, bytes | Exception] = {}
    for request, data in zip(requests, raw, strict=True):
        for name, member in request.members.items():
            found[name] = data if isinstance(data, Exception) else _cut(request, member, data)
    return found, raw


def _cut(request: _Request, member: Member, data: bytes) -> bytes | Exception:
    content = data[member.offset - request.start : member.end - request.start]
    if len(content) == member.length:
        return content
    return ValueError(
        f"{request.path} ends at byte {request.start + len(data)}, but a member is said to reach from {member.offset} "
        f"to {member.end}: the container was cut off or replaced. Bring it back, or import it again"
    )
