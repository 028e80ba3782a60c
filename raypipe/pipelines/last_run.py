"""What an output folder remembers of its last run, `<out>/run.json`: the config as it was, classes and some ids.

So a command of the same `out` can say what it is asked otherwise, and a run of another manifest is refused before it
replaces report and config. Of the ids those with the least hashes are kept: the same ones however a manifest grows,
but for the new ones among them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import raypipe
from raypipe import storage
from raypipe.config import RunConfig
from raypipe.config.differences import changed_options, flat
from raypipe.data.names import hash_names
from raypipe.data.rows import Part, Rows
from raypipe.pipelines.context import Context
from raypipe.streams.tasks import are_few, in_tasks

RUN_FILE = "run.json"

NUM_IDS = 256
"""Ids that are kept: their share of known ones is that of all by some 3 points."""

_CHANGES_NOTHING = ("manifest", "out", "cluster.", "budget.")
"""Options that say where things are, and how they are computed."""


class OtherManifest(ValueError):  # noqa: N818 - says what is wrong
    """The folder holds a run of another manifest."""


@dataclass(frozen=True)
class LastRun:
    """The last run of a folder."""

    manifest: str
    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    config: Mapping[str, Any]
    """Its options by their dotted names."""

    def differences(self, config: RunConfig) -> list[str]:
        """Options of a config that were others, as `walk.beta 8 → 4`, but for those that change no output."""
        old, new = (
            {name: value for name, value in options.items() if not name.startswith(_CHANGES_NOTHING)}
            for options in (self.config, flat(config.model_dump(mode="json")))
        )
        return changed_options(old, new)


def find_last_run(out: str) -> LastRun | None:
    """What a folder remembers; None where there was no run."""
    uri = storage.join(out, RUN_FILE)
    if not storage.exists(uri):
        return None
    found = json.loads(storage.read_bytes(uri))
    return LastRun(found["manifest"], tuple(found["classes"]), tuple(found["image_ids"]), found["config"])


def check_manifest(context: Context, *, reuse: bool) -> list[str]:
    """Makes sure that a folder's last run was of this manifest, or there was none.

    A manifest that has grown is the same, under any name: it has at least half of the ids, and the classes, with new
    ones behind them.

    Args:
        context: config and manifest.
        reuse: whatever manifest the folder's last run was of.

    Returns:
        The ids to remember.

    Raises:
        OtherManifest: if it was of another one.
    """
    last = None if reuse else find_last_run(context.config.out)
    if last is not None and context.classes[: len(last.classes)] != last.classes:
        how = f"of the classes {_some(last.classes)}, and this manifest has {_some(context.classes)}"
        raise _refusal(context, last, how)
    known = () if last is None else last.image_ids
    rows = context.rows(None, columns=("image_id",))
    found = list(in_tasks(partial(_of_part, rows, known), rows.read_parts, inline=are_few(rows)))
    number = sum(present for _, present in found)
    if last is not None and 2 * number < len(known):
        raise _refusal(context, last, f"and of {len(known)} of its images this one has {number}")
    return [image_id for _, image_id in sorted(pair for pairs, _ in found for pair in pairs)[:NUM_IDS]]


def remember_run(context: Context, image_ids: Sequence[str]) -> None:
    """Remembers a run that begins; the ids are those of `check_manifest`."""
    content = {
        "raypipe": raypipe.__version__,
        "manifest": context.config.manifest,
        "classes": context.classes,
        "image_ids": image_ids,
        "config": flat(context.config.model_dump(mode="json")),
    }
    encoded = json.dumps(content, indent=1, ensure_ascii=False).encode()
    storage.write_bytes_atomic(storage.join(context.config.out, RUN_FILE), encoded)


def _refusal(context: Context, last: LastRun, how: str) -> OtherManifest:
    return OtherManifest(
        f"{context.config.out} holds a run of another manifest, {last.manifest}, {how}: give another `out`, so that "
        "its report and config stay as they are, or `raypipe run --reuse-out`, with --retrain=all where classes differ"
    )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"


def _of_part(rows: Rows, known: Sequence[str], part: Part) -> tuple[list[tuple[int, str]], int]:
    """The ids with the least hashes, and how many of the known ones a part has."""
    image_ids = rows.read(part)["image_id"].combine_chunks()
    hashes = hash_names(image_ids, "last run")
    order = np.argsort(hashes, kind="stable")[:NUM_IDS]
    least = list(zip(hashes[order].tolist(), image_ids.take(pa.array(order)).to_pylist(), strict=True))
    return least, pc.sum(pc.is_in(image_ids, pa.array(known, pa.string()))).as_py() or 0
