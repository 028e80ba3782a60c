"""Where outputs lie and what made them: `<out>/<stage>/<digest of config and inputs>/`, with a record beside them.

Another config or other inputs give another folder, so outputs are never mixed, and what is finished is never computed
again. Changing beta changes the masks' digest and nothing before it.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import raypipe
from raypipe import storage

RECORD_FILE = "record.json"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Record:
    """What an output folder is made of: the stage, its part of the config, and digests of its inputs."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]

    @property
    def digest(self) -> str:
        """12 hex digits that name the folder."""
        return storage.digest([self.stage, self.config, self.inputs])

    def folder(self, out: str) -> str:
        """The output folder's URI."""
        return storage.join(out, self.stage, self.digest)

    def provenance(self) -> dict[str, Any]:
        """What is stored with the outputs."""
        return {"stage": self.stage, "config": self.config, "inputs": self.inputs, "raypipe": raypipe.__version__}


class MixedOutputs(ValueError):  # noqa: N818 - says what would happen, not that something is wrong
    """A folder holds outputs of another config."""


def open_folder(record: Record, out: str) -> str:
    """The output folder, with its record written, or checked where there is one.

    Raises:
        MixedOutputs: if the folder's record says something else; the message says what differs.
    """
    folder = record.folder(out)
    uri = storage.join(folder, RECORD_FILE)
    new = json.loads(json.dumps(record.provenance(), default=str))
    if storage.exists(uri):
        old = json.loads(storage.read_bytes(uri))
        if differing := _differences(old, new):
            raise MixedOutputs(
                f"{folder} was made otherwise: {'; '.join(differing)}. Give another `out`, or delete that folder"
            )
    else:
        storage.write_bytes_atomic(uri, json.dumps(new, indent=1).encode())
    return folder


def read_summary(folder: str) -> dict[str, Any] | None:
    """The summary of a finished folder; None where it isn't finished."""
    uri = storage.join(folder, SUMMARY_FILE)
    if not storage.exists(uri):
        return None
    summary: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return summary


def write_summary(folder: str, summary: dict[str, Any]) -> None:
    """Marks a folder finished; the last thing that is written into it."""
    storage.write_bytes_atomic(storage.join(folder, SUMMARY_FILE), json.dumps(summary, indent=1).encode())


def table_digest(table: pa.Table) -> str:
    """Digest of a table's rows (12 hex digits), whatever its chunks and metadata."""
    sha = hashlib.sha256()
    for batch in table.replace_schema_metadata(None).combine_chunks().to_batches():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sha.update(sink.getvalue())
    return sha.hexdigest()[:12]


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
