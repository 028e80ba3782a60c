"""Adds rows to a manifest."""

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.manifest import Manifest
from raypipe.imports.account import Account, some
from raypipe.words import counted


def add_rows(into: Manifest, new: Manifest, *, replace: bool, account: Account) -> Manifest:
    """Returns a manifest with further rows, whose classes are those of `new`.

    Args:
        into: the manifest; its classes are the first ones of `new`, in the same order.
        new: the rows.
        replace: rows of the same id are replaced where they stand, instead of being refused.
        account: is told what was added.

    Raises:
        ValueError: an id is there already.
    """
    assert new.classes[: len(into.classes)] == into.classes
    old_ids, new_ids = into.table["image_id"], new.table["image_id"]
    there = pc.is_in(new_ids, old_ids.combine_chunks())
    repeated = new_ids.filter(there).to_pylist()
    if repeated and not replace:
        raise ValueError(
            f"{some(repeated, 'image_ids are in the manifest already')}: leave these rows out, or take the new ones "
            "(--replace)"
        )
    rows = into.table
    if repeated:
        # Where a row stands decides nothing, but a file that changes little is easier to compare.
        numbers = pc.index_in(old_ids, new_ids.combine_chunks())
        both = pa.concat_tables([into.table, new.table])
        own = pa.array(range(len(into)), pa.int64())
        rows = both.take(pc.if_else(numbers.is_valid(), pc.add(pc.cast(numbers, pa.int64()), len(into)), own))
    added = new.table.filter(pc.invert(there))
    account.say(
        f"{counted(added.num_rows, 'rows')} added to the {len(into):,} of the manifest, {len(repeated):,} replaced"
    )
    return Manifest(pa.concat_tables([rows, added]), new.classes)
