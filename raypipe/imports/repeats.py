"""Rows that name the same image again: their labels are joined."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raypipe.imports.account import Account, some

_TOLD = ("split", "mask_uri", "saliency_uri", "supervision")
"""Columns in which rows of an image should agree."""


def join_repeats(table: pa.Table, ids: Sequence[str], account: Account) -> tuple[pa.Table, list[str]]:
    """Returns one row for each id: the first one, with the labels of all of them.

    What the first row lacks of the other columns comes from the next that has it.
    """
    if len(set(ids)) == len(ids):
        return table, list(ids)
    firsts: dict[str, dict[str, Any]] = {}
    same: list[str] = []
    joined: list[str] = []
    differing: dict[str, list[str]] = {}
    for own, row in zip(ids, table.to_pylist(), strict=True):
        first = firsts.setdefault(own, row)
        if first is row:
            continue
        labels: list[str] | None = first["labels"]
        others: list[str] | None = row["labels"]
        merged = others if labels is None else [*labels, *(one for one in others or () if one not in labels)]
        (same if merged == labels else joined).append(own)
        first["labels"] = merged
        for name, value in row.items():
            if first[name] is None:
                first[name] = value
            elif name in _TOLD and value is not None and value != first[name]:
                differing.setdefault(name, []).append(own)
    account.leave_out("rows that name an image again", same)
    if joined:
        account.say(f"{some(joined, 'rows name an image again with other labels')}; they were joined")
    for name, rows in differing.items():
        account.say(f"{some(rows, f'rows name an image again with another {name}')}; the first one stays")
    return pa.Table.from_pylist(list(firsts.values()), schema=table.schema), list(firsts)
