"""Reads and writes files by URI: local paths, s3://, and whatever else fsspec opens. Every write is atomic.

Credentials, endpoint and region come from the environment or the provider's chain (AWS_* variables), never from a
config or a URI. An error has the URI as a note, where its own text may lack it.
"""

from raypipe.storage.digests import bytes_digest, digest
from raypipe.storage.filesystems import arrow_filesystem, awaited, filesystem, patience
from raypipe.storage.listing import exists, glob, list_files, list_folders, list_sizes
from raypipe.storage.ranges import open_blocks, read_ranges, version
from raypipe.storage.read import opened, read_bytes, read_many
from raypipe.storage.write import create_exclusive, delete, delete_many, write_bytes_atomic, writing
from raypipe.uri import absolute, join

__all__ = [
    "absolute",
    "arrow_filesystem",
    "awaited",
    "bytes_digest",
    "create_exclusive",
    "delete",
    "delete_many",
    "digest",
    "exists",
    "filesystem",
    "glob",
    "join",
    "list_files",
    "list_folders",
    "list_sizes",
    "open_blocks",
    "opened",
    "patience",
    "read_bytes",
    "read_many",
    "read_ranges",
    "version",
    "write_bytes_atomic",
    "writing",
]
