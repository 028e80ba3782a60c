"""What an output folder remembers of its last run, `<out>/run.json`: the config as it was, classes and some images.

So a command of the same `out` can say what it is asked otherwise, and a run of another manifest is refused before it
replaces report and config. Of the ids those with the least hashes are kept: the same ones however a manifest grows,
but for the new ones among them. Of the first of them it is kept, too, which images they stand for.
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
from raypipe.pipelines.same_images import NUM_IMAGES, KnownImage, know_images, other_images
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
    images: Mapping[str, KnownImage]
    """Those of some of the ids."""
    config: Mapping[str, Any]
    """Its options by their dotted names."""

    def differences(self, config: RunConfig, classes: Sequence[str] | None = None) -> list[str]:
        """What was otherwise: classes, and options that change an output, as `walk.beta 8 → 4`.

        Args:
            config: as it is now.
            classes: of the manifest now; None leaves them out.
        """
        old, new = (
            {name: value for name, value in options.items() if not name.startswith(_CHANGES_NOTHING)}
            for options in (self.config, flat(config.model_dump(mode="json")))
        )
        return [*(changed_classes(self.classes, classes) if classes else ()), *changed_options(old, new)]


def find_last_run(out: str) -> LastRun | None:
    """What a folder remembers; None where there was no run.

    Raises:
        ValueError: another version of raypipe wrote it.
    """
    uri = storage.join(out, RUN_FILE)
    if not storage.exists(uri):
        return None
    found = json.loads(storage.read_bytes(uri))
    try:
        images = {image_id: KnownImage(**image) for image_id, image in found["images"].items()}
        classes, image_ids = tuple(found["classes"]), tuple(found["image_ids"])
        return LastRun(found["manifest"], classes, image_ids, images, found["config"])
    except KeyError as error:
        raise ValueError(
            f"{uri} has no {error}: another version of raypipe wrote it. Delete this file; outputs stay, but the next "
            "run can't see whether they are of another manifest"
        ) from error


def check_manifest(context: Context, *, reuse: bool) -> dict[str, str | None]:
    """Makes sure that a folder's last run was of this manifest, or there was none.

    A manifest that has grown is the same, under any name: it has at least half of the ids, and the classes, with new
    ones behind them. Nor are more than half of the remembered images others.

    Args:
        context: config and manifest.
        reuse: whatever manifest the folder's last run was of.

    Returns:
        The ids to remember, with their images' URIs.

    Raises:
        OtherManifest: if it was of another one.
    """
    last = None if reuse else find_last_run(context.config.out)
    if last is not None and context.classes[: len(last.classes)] != last.classes:
        changes = ", ".join(changed_classes(last.classes, context.classes))
        how = f"of the classes {_some(last.classes)}, and this one has {_some(context.classes)} ({changes})"
        raise _refusal(context, last, how, what="classes")
    known = () if last is None else last.image_ids
    rows = context.rows(None, columns=("image_id", "image_uri"))
    found = list(in_tasks(partial(_of_part, rows, known), rows.read_parts, inline=are_few(rows)))
    present = {image_id: uri for _, of_part in found for image_id, uri in of_part.items()}
    if last is not None:
        if 2 * len(present) < len(known):
            raise _refusal(context, last, f"and of {len(known)} of its images this one has {len(present)}")
        _check_images(context, last, {image_id: uri for image_id, uri in present.items() if image_id in last.images})
    least = sorted((each for of_part, _ in found for each in of_part), key=lambda each: each[:2])[:NUM_IDS]
    return {image_id: uri for _, image_id, uri in least}


def remember_run(context: Context, uris: Mapping[str, str | None]) -> None:
    """Remembers a run that begins; ids and URIs are those of `check_manifest`."""
    images = know_images(dict(list(uris.items())[:NUM_IMAGES]))
    content = {
        "raypipe": raypipe.__version__,
        "manifest": context.config.manifest,
        "classes": context.classes,
        "image_ids": list(uris),
        "images": {image_id: image._asdict() for image_id, image in images.items()},
        "config": flat(context.config.model_dump(mode="json")),
    }
    encoded = json.dumps(content, indent=1, ensure_ascii=False).encode()
    storage.write_bytes_atomic(storage.join(context.config.out, RUN_FILE), encoded)


def _check_images(context: Context, last: LastRun, uris: Mapping[str, str | None]) -> None:
    others = other_images(last.images, uris)
    if 2 * len(others) <= len(uris):
        return
    image_id, now = next(iter(others.items()))
    then = last.images[image_id]
    unread = now.content is None or then.content is None
    how = "and the two can't be compared, as one couldn't be read" if unread else "which holds something else"
    raise _refusal(
        context,
        last,
        f"and of {len(uris)} images that have the same ids, {len(others)} are others, such as {image_id}: "
        f"{then.uri} then, {now.uri} now, {how}",
    )


def _refusal(context: Context, last: LastRun, how: str, *, what: str = "images") -> OtherManifest:
    changed = last.manifest == context.config.manifest
    before = f"the manifest's {what} have changed: " if changed else ""
    of = f"{last.manifest} as it was" if changed else f"another manifest, {last.manifest}"
    return OtherManifest(
        f"{before}{context.config.out} holds a run of {of}, {how}: give another `out`, so that its report and config "
        "stay as they are, or `raypipe run --reuse-out`, with --retrain=all where classes differ"
    )


def changed_classes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Classes that have come or gone, or that they are in another order."""
    come, gone = ([name for name in ones if name not in others] for ones, others in ((new, old), (old, new)))
    if not come and not gone:
        return [] if tuple(old) == tuple(new) else ["classes in another order"]
    named = [(come, "new"), (gone, "gone")]
    return [f"{'class' if len(names) == 1 else 'classes'} {_some(names)} {how}" for names, how in named if names]


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"


def _of_part(
    rows: Rows, known: Sequence[str], part: Part
) -> tuple[list[tuple[int, str, str | None]], dict[str, str | None]]:
    """The least hashes with their ids and URIs, and the known ids that a part has with their URIs."""
    table = rows.read(part)
    hashes = hash_names(table["image_id"], "last run")
    order = np.argsort(hashes, kind="stable")[:NUM_IDS]
    least = table.take(pa.array(order))
    there = table.filter(pc.is_in(table["image_id"], pa.array(known, pa.string())))
    return list(zip(hashes[order].tolist(), *_columns(least), strict=True)), dict(zip(*_columns(there), strict=True))


def _columns(table: pa.Table) -> tuple[list[str], list[str | None]]:
    return table["image_id"].to_pylist(), table["image_uri"].to_pylist()
