"""Says where the masks of a run are, for people and programs without raypipe: `<out>/masks.json`.

A run's folders are named by digests, and `masks/` holds those of every setting that was ever tried. This file has a
name that stays. It names the folder of the last whole run, or that in which masks were computed since.
"""

import json
from collections.abc import Sequence

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.outputs.records import read_stream_summary

MASKS_FILE = "masks.json"


def write_masks_file(out: str, masks: Artifact, *, classes: Sequence[str]) -> str:
    """Writes the file; its URI.

    Args:
        out: folder of the run.
        masks: folder of the masks, which is finished.
        classes: the dataset's, in class-id order.
    """
    summary = read_stream_summary(masks.uri)
    assert summary is not None, "a stream ends with its summary"
    shards, quarantine = (
        storage.list_files(storage.join(masks.uri, kind), suffix=".parquet") for kind in (SHARDS, QUARANTINED)
    )
    content = {
        "folder": masks.uri,
        "digest": masks.digest,
        "classes": list(classes),
        "num_masks": summary.num_finished,
        "num_quarantined": summary.num_quarantined,
        "shards": shards,
        "quarantine": quarantine,
    }
    uri = storage.join(out, MASKS_FILE)
    storage.write_bytes_atomic(uri, json.dumps(content, indent=1, ensure_ascii=False).encode())
    return uri


def find_masks_file(out: str) -> str | None:
    """URI of the folder that the file names; None where there is none."""
    uri = storage.join(out, MASKS_FILE)
    if not storage.exists(uri):
        return None
    folder: str = json.loads(storage.read_bytes(uri))["folder"]
    return folder
