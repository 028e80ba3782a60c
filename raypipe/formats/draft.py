"""What a reader has found, before classes, images and ids are decided.

Readers know a layout; what all layouts have in common is decided in `raypipe.imports`.
"""

from bisect import bisect_right
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
    num_read: int | None = None
    """Rows that it has, where several make one row of the draft."""
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


def join_drafts(drafts: Sequence[Draft], *, source: str) -> Draft:
    """Returns the rows of several drafts of the same root as one draft.

    Raises:
        ValueError: they have different classes.
    """
    first, *others = drafts
    for other in others:
        if other.classes != first.classes:
            raise ValueError(
                f"{other.classes_from} are others than {first.classes_from}: import one after the other with --into"
            )
    starts = [0]
    for draft in drafts:
        starts.append(starts[-1] + draft.table.num_rows)
    tables = [
        draft.table.set_column(draft.table.column_names.index(NUMBER), NUMBER, pa.array(range(start, end), pa.int64()))
        for draft, start, end in zip(drafts, starts, starts[1:], strict=False)
    ]

    def of(number: int) -> tuple[Draft, int]:
        index = bisect_right(starts, number) - 1
        return drafts[index], number - starts[index]

    def place(number: int) -> str:
        draft, own = of(number)
        return draft.place(own)

    def draw(numbers: Sequence[int], ids: Sequence[str], class_ids: Mapping[str, int]) -> Drawn:
        uris: list[str | None] = [None] * len(numbers)
        skipped: dict[str, list[str]] = {}
        for draft in drafts:
            chosen = [index for index, number in enumerate(numbers) if of(number)[0] is draft]
            assert draft.draw is not None
            drawn = draft.draw([of(numbers[index])[1] for index in chosen], [ids[index] for index in chosen], class_ids)
            for index, uri in zip(chosen, drawn.uris, strict=True):
                uris[index] = uri
            for reason, names in drawn.skipped.items():
                skipped.setdefault(reason, []).extend(names)
        return Drawn(uris, skipped)

    skipped: dict[str, list[str]] = {}
    for draft in drafts:
        for reason, names in draft.skipped.items():
            skipped.setdefault(reason, []).extend(names)
    return replace(
        first,
        table=pa.concat_tables(tables),
        source=source,
        place=place,
        draw=None if first.draw is None else draw,
        groups={name: group for draft in drafts for name, group in draft.groups.items()},
        skipped=skipped,
        notes=[note for draft in drafts for note in draft.notes],
    )
