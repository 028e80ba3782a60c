"""Lists of classes as matrices, with a row an image and a column a class; background has none."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def class_areas(table: pa.Table, num_classes: int) -> NDArray[np.float64]:
    """Share of each image (rows) that its mask gives each class.

    Args:
        table: with the masks' `class_ids` and `areas`.
        num_classes: C, without background.
    """
    class_ids = pc.list_flatten(table["class_ids"])
    areas = pc.list_flatten(table["areas"]).to_numpy().astype(np.float64)
    return _dense(table["class_ids"], class_ids, num_classes + 1, areas)[:, 1:]


def class_labels(table: pa.Table, classes: Sequence[str]) -> NDArray[np.bool_]:
    """True where an image (row) has the label; names that are no class are passed over.

    Args:
        table: with the manifest's `labels`.
        classes: in class-id order.
    """
    known = pc.index_in(pc.list_flatten(table["labels"]), pa.array(classes, pa.string()))
    return _dense(table["labels"], known, len(classes)) > 0


def _dense(
    lists: pa.ChunkedArray, columns: pa.ChunkedArray, width: int, values: NDArray[np.float64] | float = 1.0
) -> NDArray[np.float64]:
    """Lists as rows of a matrix: `values` in the `columns` of their elements; those of no column are left out."""
    row = pc.list_parent_indices(lists.combine_chunks()).to_numpy()
    known = pc.is_valid(columns).to_numpy(zero_copy_only=False) if columns.null_count else np.ones(len(row), bool)
    matrix = np.zeros((len(lists), width))
    matrix[row[known], columns.drop_null().to_numpy()] = values if isinstance(values, float) else values[known]
    return matrix
