"""The labels of all rows as numbers, so that millions of rows are renamed, merged and counted at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelColumn:
    """Labels of N rows: pair i says that row `rows[i]` has the label `names[ids[i]]`."""

    names: tuple[str, ...]
    rows: NDArray[np.int64]
    """Ascending."""
    ids: NDArray[np.int64]
    unlabelled: NDArray[np.bool_]
    """(N,): rows that nobody labelled."""

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "LabelColumn":
        """Reads a column of lists of texts."""
        lists = column.combine_chunks()
        encoded = pc.dictionary_encode(pc.list_flatten(lists))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        return cls(
            tuple(encoded.dictionary.to_pylist()),
            np.repeat(np.arange(len(lists)), lengths),
            encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64),
            lists.is_null().to_numpy(zero_copy_only=False),
        )

    def arrow(self) -> pa.Array:
        """The column of lists, each in the order of `names`."""
        order = np.lexsort((self.ids, self.rows))
        lengths = np.bincount(self.rows, minlength=len(self.unlabelled))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = pa.array(self.names, pa.string()).take(pa.array(self.ids[order]))
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), values, pa.list_(pa.string()), mask=pa.array(self.unlabelled)
        )

    def counts(self) -> NDArray[np.int64]:
        """(number of names,): rows with each name."""
        return np.bincount(self.ids, minlength=len(self.names))

    def renamed(self, new_name: Callable[[str], str | None]) -> "LabelColumn":
        """The column with other names; several may become one, and None drops a name."""
        return self.moved({name: new_name(name) for name in self.names})

    def moved(self, new_names: dict[str, str | None]) -> "LabelColumn":
        """As `renamed`, by a table; a name that isn't in it stays."""
        targets = [new_names.get(name, name) for name in self.names]
        names = tuple(dict.fromkeys(target for target in targets if target is not None))
        numbers = {name: number for number, name in enumerate(names)}
        lookup = np.array([-1 if target is None else numbers[target] for target in targets], np.int64)
        return self._with(names, lookup[self.ids] if len(lookup) else self.ids)

    def ordered(self, names: Sequence[str]) -> "LabelColumn":
        """The column with the same names, and perhaps more, in another order."""
        numbers = {name: number for number, name in enumerate(names)}
        lookup = np.array([numbers[name] for name in self.names], np.int64)
        return self._with(tuple(names), lookup[self.ids] if len(lookup) else self.ids)

    def _with(self, names: tuple[str, ...], ids: NDArray[np.int64]) -> "LabelColumn":
        rows, ids = self.rows[ids >= 0], ids[ids >= 0]
        pairs = np.unique(rows * max(1, len(names)) + ids)  # several names of a row may have become one
        return LabelColumn(names, pairs // max(1, len(names)), pairs % max(1, len(names)), self.unlabelled)
