"""The rows that a training learns from, drawn out of all where there are more than it takes."""

from collections.abc import Sequence
from functools import partial, reduce

import pyarrow as pa

from raypipe.data.rows import Part, Rows
from raypipe.streams.collect import collect
from raypipe.streams.tasks import are_few, in_tasks
from raypipe.training import selection
from raypipe.training.selection import Totals

_SLACK = 1.25
"""Margin of the keys up to which parts send rows; where it is too small, which it hardly ever is, it is doubled."""


def draw_to_learn(rows: Rows, *, classes: Sequence[str], number: int | None, seed: int) -> pa.Table:
    """Draws the rows to learn from; the driver holds little more than those.

    Args:
        rows: with `image_id`, `labels` and perhaps `supervision`.
        classes: the dataset's.
        number: how many are drawn at most, rare classes first; see `training.selection`. None takes all.
        seed: other seeds draw other images.

    Returns:
        The rows in the order of `image_id`.
    """
    if number is None or rows.most <= number:
        return selection.drawn(selection.with_keys(collect(rows), seed=seed), classes=classes, number=number)
    inline = are_few(rows)
    counts = in_tasks(partial(_count, rows, classes), rows.read_parts, inline=inline)
    totals = reduce(Totals.plus, counts)
    slack = _SLACK
    while True:
        screen = partial(selection.screen, totals=totals, classes=classes, number=number, seed=seed, slack=slack)
        screened = pa.concat_tables(in_tasks(partial(_screen, rows, screen), rows.read_parts, inline=inline))
        if selection.suffice(screened, totals, classes=classes, number=number, slack=slack):
            return selection.drawn(screened, classes=classes, number=number)
        slack *= 2


def _count(rows: Rows, classes: Sequence[str], part: Part) -> Totals:
    return selection.count(rows.read(part), classes=classes)


def _screen(rows: Rows, screen: "partial[pa.Table]", part: Part) -> pa.Table:
    return screen(rows.read(part))
