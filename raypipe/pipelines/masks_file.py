"""Says where the masks of a run are, for people and programs without raypipe: `<out>/masks.json`.

A run's folders are named by digests, and `masks/` holds those of every setting that was ever tried. This file has a
name that stays, and names the folder that was made last and the shards in it.
"""

import json
from collections.abc import Sequence

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.results import StreamSummary

MASKS_FILE = "masks.json"


def write_masks_file(out: str, masks: Artifact, summary: StreamSummary, *, classes: Sequence[str]) -> str:
    """Writes the file; its URI.

    Args:
        out: folder of the run.
        masks: folder of the masks.
        summary: of the stream that has made them.
        classes: the dataset's, in class-id order.
    """
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
    """URI of the folder of masks that was made last in a run's folder; None where none was."""
    uri = storage.join(out, MASKS_FILE)
    if not storage.exists(uri):
        return None
    folder: str = json.loads(storage.read_bytes(uri))["folder"]
    return folder
