"""Whether true masks mean what their ids say, by a look at a sample; and masks with other ids.

Masks hold class ids, 1..C in the order of the classes, 0 background and 255 ignore. Nothing in a file says which class
an id is, so what contradicts the labels is refused.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.color_masks import decode_color_mask
from raypipe.data.content import HEAD
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.names import file_stem, hash_names
from raypipe.data.opening import ImageError
from raypipe.data.truth import unnamed_classes
from raypipe.formats.draft import Draft
from raypipe.imports.account import Account
from raypipe.imports.classes import Classes
from raypipe.schema import BACKGROUND, IGNORE

SAMPLE = 64
"""Masks that are looked at."""
ALLOWED_SHARE = 0.05
"""Share of them that may contradict their labels."""

_WRITERS = 16


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """How true masks are read."""

    values: Mapping[int, str] = field(default_factory=dict)
    """Class names of the masks' values, where they aren't class ids."""
    colors: Mapping[tuple[int, int, int], int] | None = None
    """Class ids of colours, where the data don't say them."""
    folder: str | None = None
    """Absolute URI of the folder that masks with other ids are written into."""


@dataclass(frozen=True)
class _Reader:
    """Reads masks as the data have them, and gives them the ids of the manifest."""

    table: NDArray[np.int16]
    """(256,): what a value becomes; -1 is none that a mask may have."""
    colors: Mapping[tuple[int, int, int], int] | None

    def read(self, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Returns the mask's values as the data have them and as the manifest needs them, each (H, W).

        Raises:
            ImageError: the file is no mask, or holds a value or a colour that no class has.
        """
        values = None if self.colors is None else decode_color_mask(content, self.colors)
        if values is None:
            values = decode_mask(content)
        new = self.table[values]
        if (new < 0).any():
            raise ImageError(f"it has the values {np.unique(values[new < 0]).tolist()[:5]}, which are no class ids")
        return values, new.astype(np.uint8)


def check_masks(
    draft: Draft,
    mask_uris: Sequence[str | None],
    ids: Sequence[str],
    classes: Classes,
    options: MaskOptions,
    account: Account,
) -> list[str | None]:
    """Looks at a sample of the masks, and writes all of them anew where ids change.

    Args:
        draft: where they come from.
        mask_uris: absolute URIs of the rows' masks.
        ids: of the rows.
        classes: decided, with the rows' labels.
        options: how masks are read.
        account: is told what was seen.

    Returns:
        The URIs of the masks that the manifest names.

    Raises:
        ValueError: the masks contradict the labels, or hold what are no class ids.
    """
    rows = [row for row, one in enumerate(mask_uris) if one is not None]
    if not rows:
        return list(mask_uris)
    colors = draft.colors or options.colors
    reader = _Reader(_value_table(classes, options), colors)
    rewritten = bool(colors) or bool(options.values) or not classes.keep_ids
    _look(mask_uris, rows, classes, reader, options, account)
    if not rewritten:
        return list(mask_uris)
    if options.folder is None:
        raise ValueError("masks get other ids, so they are written anew: name the folder for them by --masks")
    targets = {row: uri.join(options.folder, f"{file_stem(ids[row])}.png") for row in rows}
    if read := sorted(set(targets.values()) & set(mask_uris)):
        raise ValueError(
            f"masks get other ids, so they are written anew, but {options.folder} holds some that are read, such as "
            f"{read[0]}: name another folder (--masks)"
        )
    uris = list(mask_uris)

    def rewrite(row: int) -> tuple[int, str, str]:
        target = targets[row]
        try:
            _, mask = reader.read(storage.read_bytes(mask_uris[row] or ""))
        except (FileNotFoundError, ImageError) as error:
            return row, "", str(error)
        storage.write_bytes_atomic(target, encode_png(mask))
        return row, target, ""

    failed = []
    with ThreadPoolExecutor(_WRITERS) as threads:
        for row, target, error in threads.map(rewrite, rows):
            uris[row] = target or None
            if error:
                failed.append(f"{mask_uris[row]} ({error})")
    account.say(f"masks with the manifest's ids, written into {options.folder}: {len(rows) - len(failed):,}")
    account.leave_out("masks that can't be used; without them, rows have no mask", failed)
    return uris


def check_maps(uris: Sequence[str | None]) -> None:
    """Looks whether a sample of saliency maps is there.

    Raises:
        ValueError: too many aren't.
    """
    every = [one for one in uris if one is not None]
    hashes = hash_names(pa.array(every, pa.string()), "maps")
    chosen = [every[index] for index in np.argsort(hashes, kind="stable")[:SAMPLE].tolist()]
    heads = storage.read_many(chosen, end=HEAD)
    absent = [one for one in chosen if isinstance(heads[one], FileNotFoundError)]
    if len(absent) > ALLOWED_SHARE * len(chosen):
        raise ValueError(
            f"{len(absent)} of {len(chosen)} saliency maps that were looked for aren't there, such as {absent[0]}: "
            "mend the column saliency_uri"
        )


def _value_table(classes: Classes, options: MaskOptions) -> NDArray[np.int16]:
    table = np.full(256, -1, np.int16)
    table[BACKGROUND], table[IGNORE] = BACKGROUND, IGNORE
    if not options.values:
        for old, new in classes.ids.items():
            table[old] = new
        return table
    for value, name in options.values.items():
        if name in _SPECIAL:
            table[value] = _SPECIAL[name]
        elif name in classes.by_name:
            table[value] = classes.by_name[name]
        else:
            raise ValueError(
                f"--mask-values names {name!r}, which is no class: known are {', '.join(classes.before[:10])}"
            )
    return table


_SPECIAL = {"background": BACKGROUND, "ignore": IGNORE}


def _look(
    mask_uris: Sequence[str | None],
    rows: Sequence[int],
    classes: Classes,
    reader: _Reader,
    options: MaskOptions,
    account: Account,
) -> None:
    hashes = hash_names(pa.array([mask_uris[row] for row in rows], pa.string()), "masks")
    chosen = [rows[index] for index in np.argsort(hashes, kind="stable")[:SAMPLE].tolist()]
    contents = storage.read_many([mask_uris[row] or "" for row in chosen])
    labels = classes.labels.arrow().take(pa.array(chosen)).to_pylist()
    problems: dict[str, list[str]] = {}
    values: Counter[int] = Counter()
    contradicting: list[str] = []
    labelled = named_by_labels = 0
    for row, own in zip(chosen, labels, strict=True):
        place = mask_uris[row] or ""
        content = contents[place]
        if isinstance(content, Exception):
            if not isinstance(content, FileNotFoundError | PermissionError | ValueError):
                raise content
            problems.setdefault("can't be read", []).append(f"{place}: {str(content)[:200]}")
            continue
        try:
            found, mask = reader.read(content)
        except ImageError as error:
            problems.setdefault("aren't masks of class ids", []).append(f"{place}: {error}")
            continue
        present = np.unique(found).tolist()
        values.update(present)
        if own is not None:
            labelled += 1
            named_by_labels += bool(own)
            if extra := unnamed_classes(mask, own, classes.names):
                contradicting.append(f"{place} has {', '.join(extra)}, its labels say {', '.join(own) or 'none'}")
    number = len(chosen)
    order = ", ".join(f"{value} {name}" for value, name in enumerate(classes.before[:6], start=1))
    order += ", …" if len(classes.before) > 6 else ""
    way_out = (
        f"ids are taken as {order}. If they mean other classes, name these in the order of their ids (--classes "
        "a,b,c), or say what the values mean (--mask-values 255=lesion,1=background)"
    )
    for reason, examples in problems.items():
        told = f"{len(examples)} of {number} true masks that were looked at {reason}, such as {examples[0]}"
        if len(examples) > ALLOWED_SHARE * number:
            if "ids" not in reason:
                way_out = "mend the column of masks"
            elif "mode RGB" in examples[0]:
                way_out = "colours are read where a labelmap.txt says which class they are (--classes labelmap.txt)"
            raise ValueError(f"{told}: {way_out}")
        account.say(told)
    if not options.values and set(values) <= {BACKGROUND, IGNORE}:
        if IGNORE in values:
            raise ValueError(
                f"all {number} true masks that were looked at hold 0 and 255 only, and 255 means ignored: if it is a "
                f"class, say which (--mask-values 255={classes.before[0]}), else that it is none (--mask-values "
                "255=ignore)"
            )
        if named_by_labels:
            raise ValueError(
                f"all {number} true masks that were looked at hold 0 only, the background, while labels name classes: "
                "mend the column of masks, or say that they are so (--mask-values 0=background)"
            )
    if contradicting:
        told = (
            f"{len(contradicting)} of {labelled} true masks that were looked at have a class that their image's labels "
            f"don't name, such as {contradicting[0]}"
        )
        if len(contradicting) > ALLOWED_SHARE * labelled:
            raise ValueError(f"{told}: {way_out}")
        account.say(told)
    shown = ", ".join(f"{value} in {values[value]}" for value in sorted(values)[:8])
    shown += ", …" if len(values) > 8 else ""
    taken = "" if options.values or reader.colors else f"; they are taken as {order}"
    account.say(f"true masks: {number} of {len(rows):,} looked at; ids {shown}{taken}")
