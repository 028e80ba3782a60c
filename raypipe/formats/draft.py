"""What a reader has found, before classes, images and ids are decided.

Readers know a layout; what all layouts have in common is decided in `raypipe.imports`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa

from raypipe import schema

NUMBER = "number"
"""Column of a draft: the row's number in the source, for messages."""

DRAFT = pa.schema([field.with_nullable(nullable=True) for field in schema.MANIFEST] + [pa.field(NUMBER, pa.int64())])
"""Columns of a draft: those of a manifest, where `image_id` is null if the data give none, and `image_uri` is the
image's name as the data give it."""


class Drawn(NamedTuple):
    """Masks that a reader has drawn."""

    uris: list[str | None]
    """Of the rows that were asked for."""
    skipped: Mapping[str, Sequence[str]]
    """What was left out, by reason."""


Draw = Callable[[Sequence[int], Sequence[str], Mapping[str, int]], Drawn]
"""Draws masks: of the rows with these numbers, named after these ids, with these class ids of the names in the data."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Rows of a dataset in another layout."""

    table: pa.Table
    """As `DRAFT`."""
    source: str
    """What was read, for messages."""
    root: str
    """URI of the folder that images' names count from."""
    place: Callable[[int], str] = field(default="row {}".format, repr=False)
    """Says where a row stands, by its number."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of their ids, if the data say it."""
    classes_from: str = ""
    """What says it, for messages."""
    usual_classes: bool = False
    """The data don't say `classes` themselves: such data usually have them, so what is asked for goes before them."""
    colors: Mapping[tuple[int, int, int], int] | None = None
    """Class ids of masks' colours, if the data say it."""
    draw: Draw | None = None
    """Draws the masks, if the data have regions instead; `mask_uri` is null then."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """What a class belongs to, as far as the data say it: a draft of a map (`--draft-map`) proposes it."""
    any_ending: bool = False
    """Images are named without their ending."""
    are_there: bool = False
    """The images come from a listing, or lie in containers: they needn't be looked for."""
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What was left out, by reason."""
    notes: Sequence[str] = ()
    """What was odd, and how it was read."""

    def limit(self, number: int) -> "Draft":
        """The draft with the first rows of each split."""
        seen: Counter[str | None] = Counter()
        kept = []
        for row, split in enumerate(self.table["split"].to_pylist()):
            seen[split] += 1
            if seen[split] <= number:
                kept.append(row)
        return replace(self, table=self.table.take(pa.array(kept, pa.int64())))

    def with_split(self, split: str) -> "Draft":
        """The draft with all rows in one split."""
        column = pa.array([split] * self.table.num_rows, pa.string())
        return replace(self, table=self.table.set_column(self.table.column_names.index("split"), "split", column))


def draft_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Returns rows as the table of a draft; they are numbered from 0 unless they have numbers.

    Raises:
        ValueError: a value isn't of its column's kind.
    """
    numbered = [{NUMBER: number, **row} for number, row in enumerate(rows)]
    try:
        return pa.Table.from_pylist(numbered, schema=DRAFT)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise ValueError(f"a row doesn't fit the manifest's columns: {str(error)[:300]}") from error
