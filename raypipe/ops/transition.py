"""Builds the walk's step matrix in symmetric, sparse form.

    S = D^-1/2 W^beta D^-1/2,   D_ii = sum_j W_ij^beta,   W_ii = 1

Conventions. W is stored as in `raypipe.ops.affinity`; entries that point outside the grid are ignored. Cells are
numbered row by row, N = h * w. T = D^-1 W^beta = D^-1/2 S D^1/2 has rows that sum to 1.

Source: AffinityNet, https://arxiv.org/abs/1803.10464, §3.4, eq. 6.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from raypipe.ops.affinity import grid_pairs, pair_offsets

_BLOCK_BYTES = 2**22
"""Bytes of the matrix that a CPU multiplies at once. Values from 1 to 8 MiB are equally fast; on a 256x256 grid a
product with 4 maps takes 7.0 ms, without blocks 10.5 ms."""

Product = Callable[[Tensor], Tensor]
"""v -> 2 S v for float64 maps of shape (K, N), with the factor 2 of the Chebyshev recurrence."""


def symmetric_transition(
    affinity: Float[Tensor, "num_offsets h w"], *, beta: float | int, radius: int
) -> tuple[Product, Float[Tensor, " N"]]:
    """Returns the product with 2 S and the square root of D, in float64 on the affinity's device.

    Args:
        affinity: W in [0, 1]. On an accelerator other values make all edges NaN, since raising had to wait for them.
        beta: exponent on W, >= 0; 0 is the limit from above: zero edges stay zero.
        radius: the paper's gamma that the affinity was computed with.

    Returns:
        v -> 2 S v, and D^1/2.
    """
    _, height, width = affinity.shape
    if affinity.device.type == "cpu":
        return _diagonal_transition(edge_weights(affinity.flatten(1), beta), height, width, radius)
    return _compressed_transition(_poisoned_weights(affinity, beta), height, width, radius)


def block_transition(
    affinities: Sequence[Float[Tensor, "num_offsets _h _w"]], *, beta: float | int, radius: int
) -> tuple[Product, Float[Tensor, " N"]]:
    """Returns `symmetric_transition` of several images as the blocks of one matrix; N counts the cells of all images.

    Args:
        affinities: affinity of each image as in `symmetric_transition`, all on one device.
        beta: as in `symmetric_transition`.
        radius: as in `symmetric_transition`.

    Returns:
        As `symmetric_transition`.
    """
    blocks = [_compressed_block(_poisoned_weights(a, beta), a.shape[1], a.shape[2], radius) for a in affinities]
    return _compressed_product(blocks)


def edge_weights(affinity: Float[Tensor, "*shape"], beta: float | int) -> Float[Tensor, "*shape"]:
    """Returns W^beta in float64, 0 where an edge is missing."""
    edges = affinity.to(torch.float64)
    return torch.where(edges > 0, edges**beta, 0)  # 0**0 is 1, but a missing edge must stay missing


def _poisoned_weights(affinity: Tensor, beta: float | int) -> Tensor:
    """Returns `edge_weights`, or NaN throughout if an affinity lies outside [0, 1]."""
    valid = ((affinity >= 0) & (affinity <= 1)).all()
    return torch.where(valid, edge_weights(affinity.flatten(1), beta), math.nan)


def _diagonal_transition(weights: Tensor, height: int, width: int, radius: int) -> tuple[Product, Tensor]:
    """Stores S by diagonals, for a CPU: each offset is one, and a product along it is as fast as one of plain vectors.

    A product with 4 maps in float64 takes 0.2 ms on a 47x63 grid; with scipy's CSR it takes 0.5 ms.
    """
    num_cells = height * width
    pairs = grid_pairs(height, width, radius)
    edges = weights.numpy()
    degree = np.ones(num_cells)
    for k, shift, mask in pairs:
        edge = edges[k, : num_cells - shift]
        edge *= mask
        degree[: num_cells - shift] += edge
        degree[shift:] += edge
    root = np.sqrt(degree)
    # Two offsets share a diagonal on grids narrower than 2 * radius - 1, never at the same cell.
    shifts, rows = np.unique(np.array([pair.shift for pair in pairs], np.int64), return_inverse=True)
    diagonals = np.zeros((2 * len(shifts) + 1, num_cells))
    diagonals[0] = 2 / degree
    for (k, shift, _), row in zip(pairs, rows.tolist(), strict=True):
        entry = 2 * edges[k, : num_cells - shift] / (root[: num_cells - shift] * root[shift:])
        # scipy stores a diagonal's entry in matrix column j at position j.
        diagonals[1 + row, : num_cells - shift] += entry
        diagonals[1 + len(shifts) + row, shift:] += entry
    blocks = _row_blocks(diagonals, np.concatenate([[0], -shifts, shifts]))

    def twice_s(maps: Tensor) -> Tensor:
        product = torch.empty(maps.shape, dtype=maps.dtype)
        for rows, columns, matrix in blocks:
            for source, target in zip(maps.numpy(), product.numpy(), strict=True):
                target[rows] = matrix @ source[columns]
        return product

    return twice_s, torch.from_numpy(root)


def _row_blocks(
    diagonals: NDArray[np.float64], shifts: NDArray[np.int64]
) -> list[tuple[slice, slice, scipy.sparse.dia_array]]:
    """Cuts the matrix into blocks of rows that stay in the cache while every map is multiplied with them.

    Each block is returned with its rows and with the columns that its entries can reach.
    """
    num_cells = diagonals.shape[1]
    num_blocks = -(-diagonals.nbytes // _BLOCK_BYTES)
    height = -(-num_cells // num_blocks)
    reach = int(shifts.max())
    blocks = []
    for first in range(0, num_cells, height):
        rows = slice(first, min(num_cells, first + height))
        columns = slice(max(0, first - reach), min(num_cells, rows.stop + reach))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        block = (np.ascontiguousarray(diagonals[:, columns]), shifts + (first - columns.start))
        blocks.append((rows, columns, scipy.sparse.dia_array(block, shape=shape)))
    return blocks


@lru_cache(maxsize=16)
def _compressed_pattern(
    height: int, width: int, radius: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the sparsity of S: the first entry of each row, and each entry's column, row and index of its weight.

    Indices count through the flattened edge weights; the one beyond them stands for the diagonal's weight of 1.
    """
    num_cells = height * width
    cells = np.arange(num_cells)
    rows, columns, sources = [cells], [cells], [np.full(num_cells, len(pair_offsets(radius)) * num_cells)]
    for k, shift, mask in grid_pairs(height, width, radius):
        start = cells[: num_cells - shift][mask]
        rows += [start, start + shift]
        columns += [start + shift, start]
        sources += 2 * [start + k * num_cells]
    row, column, source = np.concatenate(rows), np.concatenate(columns), np.concatenate(sources)
    order = np.lexsort((column, row))
    first = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_cells))])
    first_t, column_t, row_t, source_t = (
        torch.from_numpy(a).to(device) for a in (first, column[order], row[order], source[order])
    )
    return first_t, column_t, row_t, source_t


class _Block(NamedTuple):
    """W^beta of one image as a CSR matrix."""

    first: Tensor
    column: Tensor
    row: Tensor
    entries: Tensor


def _compressed_block(weights: Tensor, height: int, width: int, radius: int) -> _Block:
    first, column, row, source = _compressed_pattern(height, width, radius, weights.device)
    return _Block(first, column, row, torch.cat([weights.flatten(), weights.new_ones(1)])[source])


def _compressed_transition(weights: Tensor, height: int, width: int, radius: int) -> tuple[Product, Tensor]:
    """Stores S as a sparse CSR tensor, for accelerators: a product is one kernel; the pattern stays on the device."""
    return _compressed_product([_compressed_block(weights, height, width, radius)])


def _compressed_product(blocks: Sequence[_Block]) -> tuple[Product, Tensor]:
    first_cell = np.cumsum([0, *(len(block.first) - 1 for block in blocks)]).tolist()
    first_entry = np.cumsum([0, *(len(block.entries) for block in blocks)]).tolist()
    num_cells = first_cell[-1]
    # The last offset of each block is the first of the next one.
    first = torch.cat(
        [
            *(block.first[:-1] + start for block, start in zip(blocks, first_entry, strict=False)),
            blocks[-1].first[-1:] + first_entry[-2],
        ]
    )
    column = torch.cat([block.column + start for block, start in zip(blocks, first_cell, strict=False)])
    row = torch.cat([block.row + start for block, start in zip(blocks, first_cell, strict=False)])
    entries = torch.cat([block.entries for block in blocks])
    # Unlike index_add_ this gives the same bits in every run. Checking the offsets would make us wait for the device.
    root = torch.segment_reduce(entries, "sum", offsets=first, unsafe=True).sqrt()
    values = 2 * entries / (root[row] * root[column])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(first, column, values, (num_cells, num_cells), check_invariants=False)

    def twice_s(maps: Tensor) -> Tensor:
        return (matrix @ _row_major(maps.T)).T

    return twice_s, root


def _row_major(matrix: Tensor) -> Tensor:
    """Copies a matrix so that its strides say what its layout is, also with one row or column.

    A transposed view of one row has the strides (1, 1), which cuSPARSE would read as those of columns, against the rows
    of the result. `contiguous()` leaves them as they are.
    """
    return matrix.clone(memory_format=torch.contiguous_format)
