"""Reads many places of containers at once."""

from collections.abc import Mapping

import fsspec

from raypipe.containers.cells import read_cells
from raypipe.containers.members import read_members
from raypipe.containers.place import Cell, Member, Place


def read_places(fs: fsspec.AbstractFileSystem, wanted: Mapping[str, tuple[str, Place]]) -> dict[str, bytes | Exception]:
    """Returns each place's bytes, or why there are none.

    Args:
        fs: where the containers lie.
        wanted: the container's path and the place in it, by URI.
    """
    members = {uri: (path, place) for uri, (path, place) in wanted.items() if isinstance(place, Member)}
    cells = {uri: (path, place) for uri, (path, place) in wanted.items() if isinstance(place, Cell)}
    return read_members(fs, members) | read_cells(fs, cells)
