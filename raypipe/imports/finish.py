"""From a draft to a manifest: the steps that all layouts share, in their order."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import schema, uri
from raypipe.data.manifest import Manifest
from raypipe.formats.draft import NUMBER, Draft
from raypipe.imports.account import Account, unlabelled_text
from raypipe.imports.classes import ClassOptions, decide_classes, say_rare
from raypipe.imports.grow import add_rows
from raypipe.imports.ids import Ids, make_ids, make_unique
from raypipe.imports.images import Check, find_images
from raypipe.imports.label_column import LabelColumn
from raypipe.imports.repeats import join_repeats
from raypipe.imports.truth import MaskOptions, check_maps, check_masks
from raypipe.schema import SUPERVISED
from raypipe.words import counted


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What an import was asked for, whatever the layout."""

    images: str | None = None
    """Folder in which names are looked up; see `find_images`."""
    check: Check = "auto"
    skip_missing: bool = False
    ids: Ids = "path"
    classes: ClassOptions = field(default_factory=ClassOptions)
    masks: MaskOptions = field(default_factory=MaskOptions)
    replace: bool = False
    """Rows of the manifest that is added to may be replaced by rows of the same id."""


class Imported(NamedTuple):
    """A manifest, and what was seen on the way to it."""

    manifest: Manifest
    account: Account


def finish(draft: Draft, options: ImportOptions | None = None, *, into: Manifest | None = None) -> Imported:
    """Returns the manifest of a draft.

    Args:
        draft: what a reader has found.
        options: what was asked for.
        into: the rows are added to those of this manifest.

    Raises:
        FileNotFoundError: a folder isn't there.
        ValueError: the data contradict themselves or what was asked for; the message names the way out.
    """
    options = options or ImportOptions()
    account = Account()
    account.say(f"{draft.source}: {counted(draft.num_read or draft.table.num_rows, 'rows')}")
    for note in draft.notes:
        account.say(note)
    for reason, names in draft.skipped.items():
        account.leave_out(reason, names)
    if draft.table.num_rows == 0:
        raise ValueError(f"{draft.source} has no rows")
    images = None if options.images is None else uri.absolute(options.images)
    uris, keep = find_images(
        draft,
        images=images,
        check=options.check,
        skip_missing=options.skip_missing,
        account=account,
        known=() if into is None else into.table["image_uri"].to_pylist(),
    )
    table = draft.table.set_column(draft.table.column_names.index("image_uri"), "image_uri", uris)
    table = table.filter(pa.array(keep)).combine_chunks()
    found = table["image_uri"].to_pylist()
    ids = make_ids(table["image_id"].to_pylist(), found, root=images or draft.root, ids=options.ids)
    table, ids = join_repeats(table, make_unique(ids, found, account), account)
    known = () if into is None else into.classes
    classes = decide_classes(LabelColumn.of(table["labels"]), draft, options.classes, known=known, account=account)
    supervision = table["supervision"].to_pylist()
    if draft.draw is None:
        given = _absolute(table["mask_uri"], draft.root)
        mask_uris = check_masks(draft, given, ids, classes, options.masks, account)
        lost = [old is not None and new is None for old, new in zip(given, mask_uris, strict=True)]
        supervision = [None if gone and one == SUPERVISED else one for one, gone in zip(supervision, lost, strict=True)]
    else:
        drawn = draft.draw(table[NUMBER].to_pylist(), ids, classes.by_name)
        for reason, names in drawn.skipped.items():
            account.leave_out(reason, names)
        mask_uris = drawn.uris
        supervision = [SUPERVISED if one else None for one in mask_uris]
        account.say(f"masks drawn: {sum(one is not None for one in mask_uris):,}")
    saliency_uris = _absolute(table["saliency_uri"], draft.root)
    check_maps(saliency_uris)
    columns = {
        "image_id": pa.array(ids, pa.string()),
        "image_uri": table["image_uri"],
        "labels": classes.labels.arrow(),
        "split": table["split"],
        "mask_uri": pa.array(mask_uris, pa.string()),
        "saliency_uri": pa.array(saliency_uris, pa.string()),
        "supervision": pa.array(supervision, pa.string()),
    }
    manifest = Manifest(
        pa.table([columns[name] for name in schema.MANIFEST.names], schema.MANIFEST.names), classes.names
    )
    if unlabelled := manifest.table["labels"].null_count:
        account.say(unlabelled_text(unlabelled))
    empty = pc.sum(pc.equal(pc.list_value_length(manifest.table["labels"]), 0)).as_py() or 0
    if empty:
        account.say(f"{counted(empty, 'images')} of none of the classes: such images are counterexamples")
    if into is not None:
        manifest = add_rows(into, manifest, replace=options.replace, account=account)
    labels = LabelColumn.of(manifest.table["labels"])
    counts = Counter(dict(zip(labels.names, labels.counts().tolist(), strict=True)))
    say_rare(counts, manifest.classes, account)
    return Imported(manifest, account)


def _absolute(column: pa.ChunkedArray, root: str) -> list[str | None]:
    return [one and uri.absolute(one, root) for one in column.to_pylist()]
