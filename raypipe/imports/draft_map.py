"""Writes a draft of a class map: all names with the number of their images, and what they may be merged into."""

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence

from raypipe import storage
from raypipe.formats.draft import Draft
from raypipe.imports.label_column import LabelColumn

HEADER = ("name", "new", "images")


def write_draft_map(draft: Draft, uri: str) -> int:
    """Writes the names of a draft, with what they belong to as new names; returns how many there are."""
    labels = LabelColumn.of(draft.table["labels"])
    counts = dict(zip(labels.names, labels.counts().tolist(), strict=True))
    names = {**dict.fromkeys(draft.classes or (), 0), **counts}
    return write_map(names, uri, groups=draft.groups)


def write_map(counts: Mapping[str, int], uri: str, *, groups: Mapping[str, str] | None = None) -> int:
    """Writes a draft of a map: the most frequent names first, twins by case merged into the most frequent of them."""
    order = sorted(counts, key=lambda name: (-counts[name], name))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for name, new in merge_twins(order).items():
        writer.writerow((name, (groups or {}).get(name, new), counts[name]))
    storage.write_bytes_atomic(uri, text.getvalue().encode())
    return len(order)


def merge_twins(names: Sequence[str]) -> dict[str, str]:
    """Returns for each name the first that differs from it by case, accents' form, spaces or underscores alone."""
    firsts: dict[str, str] = {}
    return {name: firsts.setdefault(form(name), name) for name in names}


def form(name: str) -> str:
    """What twins have in common."""
    visible = "".join(one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) != "Cf")
    return " ".join(visible.casefold().replace("_", " ").replace("-", " ").split())
