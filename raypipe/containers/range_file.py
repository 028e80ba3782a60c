"""A file of which a part is in memory, and the rest is fetched as it is asked for."""

import io

import fsspec

from raypipe.containers.fetch import Range, fetch_ranges


class RangeFile(io.RawIOBase):
    """What pyarrow reads a Parquet file from, whose footer it has already.

    Args:
        fs: where the file lies.
        path: its path there.
        start: where the part in memory begins.
        part: these bytes.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, start: int = 0, part: bytes = b"") -> None:
        super().__init__()
        self._fs, self._path, self._start, self._part = fs, path, start, part
        self._position = 0
        self.failure: Exception | None = None
        """Why bytes couldn't be fetched: such an error isn't the file's."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position. The end of the file isn't known, and taken to be further than any chunk's."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: 2**62}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Returns the next `size` bytes; fewer at the file's end.

        Raises:
            OSError: they can't be fetched; `failure` says why.
        """
        start, end = self._position, self._position + size
        if self._start <= start and end <= self._start + len(self._part):
            content = self._part[start - self._start : end - self._start]
        else:
            [fetched] = fetch_ranges(self._fs, [Range(self._path, start, end)])
            if isinstance(fetched, Exception):
                self.failure = fetched
                raise OSError(str(fetched)) from fetched
            content = fetched
        self._position += len(content)
        return content
