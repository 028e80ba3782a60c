"""What a run came to, and what it should have come to."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from faults import SCHEMAS, row_bytes, stream_folder

from raypipe import storage
from raypipe.data.checkpoints import METADATA_FILE, Task, read_metadata
from raypipe.data.shards import read_shards
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.schema import QUARANTINE

NETWORKS: tuple[Task, ...] = ("classifier", "affinity")
MOST_NAMED = 5
"""Images in a message."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to; steps by name, rows by `image_id`."""

    rows: Mapping[str, Mapping[str, str]]
    """Digest of all columns of each finished row of a step."""
    doubled: Mapping[str, Collection[str]]
    """Rows of a step that are there more than once."""
    quarantined: Mapping[str, Mapping[str, str]]
    """Stage and reason of each row in a step's quarantine."""
    weights: Mapping[str, str]
    """Digest of each network."""

    @property
    def digest(self) -> str:
        """Of all masks."""
        return hashlib.sha256(repr(sorted(self.rows["masks"].items())).encode()).hexdigest()[:12]


def read_outcome(out: str) -> Outcome:
    """Reads what a finished run has written."""
    rows, doubled, quarantined, weights = {}, {}, {}, {}
    for step, schema in SCHEMAS.items():
        folder = stream_folder(step, out)
        assert folder is not None, f"the run in {out} ended without {step}"
        found = read_shards(storage.join(folder, SHARDS), schema=schema).to_pylist()
        rows[step] = {row["image_id"]: hashlib.sha256(row_bytes(row)).hexdigest()[:12] for row in found}
        doubled[step] = {name for name, times in Counter(row["image_id"] for row in found).items() if times > 1}
        refused = read_shards(storage.join(folder, QUARANTINED), schema=QUARANTINE).to_pylist()
        quarantined[step] = {row["image_id"]: f"{row['stage']}: {row['reason']}" for row in refused}
    for task in NETWORKS:
        (metadata,) = storage.list_files(storage.join(out, task), suffix=METADATA_FILE)
        weights[task] = read_metadata(metadata.rsplit("/", 1)[0], task=task)["digest"]
    return Outcome(rows=rows, doubled=doubled, quarantined=quarantined, weights=weights)


def unaccounted(outcome: Outcome, image_ids: Collection[str]) -> list[str]:
    """What is wrong with the accounts, in words: each image is finished or in quarantine in each step, and once."""
    wrong = []
    for step in outcome.rows:
        finished, refused = set(outcome.rows[step]), set(outcome.quarantined[step])
        wrong += _named(f"{step}: neither finished nor in quarantine", set(image_ids) - finished - refused)
        wrong += _named(f"{step}: in no manifest", (finished | refused) - set(image_ids))
        wrong += _named(f"{step}: finished and in quarantine", finished & refused)
        wrong += _named(f"{step}: finished twice", outcome.doubled[step])
    return wrong


def differences(undisturbed: Outcome, disturbed: Outcome) -> list[str]:
    """What differs, in words."""
    wrong = [
        f"the weights of the {task} are {disturbed.weights[task]}, undisturbed {digest}"
        for task, digest in undisturbed.weights.items()
        if disturbed.weights[task] != digest
    ]
    for step, rows in undisturbed.rows.items():
        others = disturbed.rows[step]
        wrong += _named(f"{step}: other bytes", {name for name in rows if others.get(name, rows[name]) != rows[name]})
    return wrong + wrongly_quarantined(undisturbed, disturbed)


def wrongly_quarantined(undisturbed: Outcome, disturbed: Outcome) -> list[str]:
    """Rows in quarantine that aren't there undisturbed, in words."""
    wrong = []
    for step, reasons in disturbed.quarantined.items():
        more = sorted(reasons.keys() - undisturbed.quarantined[step].keys())
        wrong += _named(f"{step}: in quarantine, first for {reasons[more[0]]!r}" if more else "", more)
    return wrong


def _named(what: str, names: Collection[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(sorted(names)[:MOST_NAMED])
    return [f"{what}: {len(names)} ({shown}{', …' if len(names) > MOST_NAMED else ''})"]
