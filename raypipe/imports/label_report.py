"""What a manifest's labels are like: how many images each has, which go together, and which may be one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from raypipe.imports.alike import alike
from raypipe.imports.classes import FEW_IMAGES
from raypipe.imports.label_column import LabelColumn
from raypipe.words import counted

_MOST_PAIRS = 10
_OFTEN = 0.7
"""Share of a class's images from which on another class goes with it: such classes can hardly be told apart."""


@dataclass
class LabelCounts:
    """Images by their labels."""

    classes: tuple[str, ...]
    images: int = 0
    unlabelled: int = 0
    empty: int = 0
    """Images of none of the classes."""
    counts: Counter[str] = field(default_factory=Counter)
    """Images of each label, also of one that is no class."""
    together: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(C, C): images that have both of two classes."""

    def add(self, column: pa.ChunkedArray) -> None:
        """Adds the labels of some rows."""
        labels = LabelColumn.of(column)
        number = len(labels.unlabelled)
        self.images += number
        self.unlabelled += int(labels.unlabelled.sum())
        labelled = np.zeros(number, bool)
        labelled[labels.rows] = True
        self.empty += int((~labelled & ~labels.unlabelled).sum())
        self.counts.update(dict(zip(labels.names, labels.counts().tolist(), strict=True)))
        known = labels.moved({name: None for name in labels.names if name not in self.classes}).ordered(self.classes)
        shape = (number, len(self.classes))
        has = csr_array((np.ones(len(known.rows), np.int64), (known.rows, known.ids)), shape=shape)
        pairs = (has.T @ has).toarray()
        self.together = pairs if not self.together.size else self.together + pairs


def count_labels(columns: Iterable[pa.ChunkedArray], classes: Sequence[str]) -> LabelCounts:
    """Counts the labels of a manifest's parts, one after the other."""
    found = LabelCounts(tuple(classes))
    for column in columns:
        found.add(column)
    return found


def report(found: LabelCounts) -> str:
    """Returns the counts, and what is worth a look, as text."""
    names = sorted({*found.classes, *found.counts}, key=lambda name: (-found.counts[name], name))
    width = max(len(name) for name in names)
    lines = [
        f"{counted(found.images, 'images')}, {counted(len(found.classes), 'classes')}, "
        f"{found.unlabelled:,} without labels, {found.empty:,} of none of the classes",
        *(
            f"  {name:{width}}  {found.counts[name]:>9,}  {found.counts[name] / max(1, found.images):6.1%}"
            f"{'' if name in found.classes else '  is no class'}"
            for name in names
        ),
    ]
    lines += _section("Often together, so that they can hardly be told apart:", _pairs(found))
    twins = [f"{other} and {first}" for first, other in alike(names)]
    lines += _section("Names that may mean the same:", twins)
    rare = [f"{name}: {found.counts[name]}" for name in names if found.counts[name] < FEW_IMAGES]
    lines += _section(f"Fewer than {FEW_IMAGES} images, too few to be learned:", rare)
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _pairs(found: LabelCounts) -> list[str]:
    """Pairs of classes of which one seldom comes without the other, those of the most images first."""
    both, pairs = found.together, []
    for one, other in zip(*np.nonzero(np.triu(both, k=1)), strict=True):
        number, least = int(both[one, other]), int(min(both[one, one], both[other, other]))
        if number > _OFTEN * least and number > 1:
            seldom, often = (one, other) if both[one, one] <= both[other, other] else (other, one)
            share = number / least
            text = f"{share:.0%} of the {least:,} images of {found.classes[seldom]} have {found.classes[often]}, too"
            pairs.append((number, text))
    return [text for _, text in sorted(pairs, key=lambda pair: -pair[0])[:_MOST_PAIRS]]
