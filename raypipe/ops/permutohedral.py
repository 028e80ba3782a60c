r"""Gaussian filters over points of a feature space by the permutohedral lattice, in plain torch on any device.

    out_i = n_i sum_j exp(-|f_i - f_j|^2 / 2) n_j v_j      with n_i = (sum_j exp(-|f_i - f_j|^2 / 2))^(-1/2)

approximately, for values v at N points with features f of d dimensions, in time proportional to N d^2. Each point lies
in a simplex of a lattice. Its value is spread to the simplex's d + 1 vertices by barycentric weights (splat), the
vertices are blurred along the lattice's d + 1 axes by (1/2, 1, 1/2), and the point gathers what its vertices then have
(slice). Blurring scales everything by a constant, which the normalisation n takes out again.

Vertices, blur and normalisation are those of the code that Krähenbühl and Koltun released, and so of pydensecrf, its
NORMALIZE_SYMMETRIC; results differ in rounding. Instead of a hash table, vertices have integer codes that are sorted.
A vertex sums its points in the order of the sort and in pieces of a fixed length, without atomics: runs give equal
bytes. The device is waited for once, for the number of vertices, when a lattice is built, and never when it filters.

Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

PIECE = 32
"""Terms that one thread sums: of a vertex in a flat area, which has thousands, many threads sum a piece each."""

_MAX_ELEMENTS = 2**26
"""Numbers that a filter spreads at a time, 256 MiB of float32; more columns of values take turns."""
_LARGEST_CODE = 2.0**62
_EPS = 1e-20


@dataclass(frozen=True)
class Lattice:
    """A filter over given points; `build` makes one."""

    weights: Float32[Tensor, "vertices_each N"]
    """Barycentric weights of a point's d + 1 vertices, times the point's n."""
    vertices: Int32[Tensor, "vertices_each N"]
    """The points' vertices."""
    points: Int32[Tensor, " entries"]
    """The point of each of the (d + 1) N weights, those of the same vertex one after the other."""
    splat_weights: Float32[Tensor, "entries 1"]
    """The weights in that order."""
    pieces: Int64[Tensor, " pieces_and_end"]
    """Where in that order each piece begins; a piece has `PIECE` entries of one vertex at most."""
    first_pieces: Int64[Tensor, " vertices_and_end"]
    """The first piece of each vertex."""
    neighbours: Int32[Tensor, "axes 2 vertices_and_none"]
    """The vertices before and behind each one along each axis. Where there is none it is the last of all, which is
    zero and its own neighbour."""

    def filter(self, values: Float32[Tensor, "N C"]) -> Float32[Tensor, "N C"]:
        """Filters columns of values, each by itself.

        Args:
            values: v, for any number of columns.

        Returns:
            The filtered values.
        """
        number = max(1, _MAX_ELEMENTS // len(self.points))
        return torch.cat([self._filter(part) for part in torch.split(values, number, dim=1)], dim=1)

    def _filter(self, values: Tensor) -> Tensor:
        spread = values.index_select(0, self.points).mul_(self.splat_weights)
        for offsets in (self.pieces, self.first_pieces):
            spread = torch.segment_reduce(spread, "sum", offsets=offsets, unsafe=True)
        blurred = F.pad(spread, (0, 0, 0, 1))
        for before, behind in self.neighbours:
            beside = blurred.index_select(0, before).add_(blurred.index_select(0, behind))
            blurred = torch.add(blurred, beside, alpha=0.5)
        gathered = torch.zeros_like(values)
        for weights, vertices in zip(self.weights, self.vertices, strict=True):
            gathered.addcmul_(weights[:, None], blurred.index_select(0, vertices))
        return gathered


def build(features: Float[Tensor, "d N"]) -> Lattice:
    """Builds the lattice around points.

    Args:
        features: of the points, in units of the Gaussian's standard deviation; at least one point and one dimension.

    Returns:
        The filter, on the features' device.

    Raises:
        ValueError: there is no point or no dimension, or the features aren't finite or span more than vertices have
            codes for: some thousands of standard deviations in each of 5 dimensions.
    """
    if features.numel() == 0:
        raise ValueError(f"expected at least one dimension and one point, got features {tuple(features.shape)}")
    corners, ranks, weights = _simplices(features.to(torch.float32))
    codes, steps, largest = _codes(corners, ranks)
    sorted_codes, order = torch.sort(codes.flatten(), stable=True)
    begins = torch.ones_like(sorted_codes, dtype=torch.bool)
    torch.ne(sorted_codes[1:], sorted_codes[:-1], out=begins[1:])
    vertex = begins.cumsum(0) - 1
    begins[::PIECE] = True
    piece = begins.cumsum(0) - 1
    # All that the device is waited for.
    last_vertex, last_piece, span = torch.stack([vertex[-1].double(), piece[-1].double(), largest]).tolist()
    if not span < _LARGEST_CODE:
        raise ValueError(
            "expected finite features that span at most some thousands of standard deviations in each dimension, got "
            f"{span:.3g} possible vertices, of which at most {_LARGEST_CODE:.3g} can be told apart; widen the Gaussian"
        )
    starts, pieces = _starts(vertex, int(last_vertex) + 1), _starts(piece, int(last_piece) + 1)
    vertices = torch.empty_like(vertex, dtype=torch.int32)
    vertices[order] = vertex.to(torch.int32)
    lattice = Lattice(
        weights=weights,
        vertices=vertices.reshape(codes.shape),
        points=(order % codes.shape[1]).to(torch.int32),
        splat_weights=weights.flatten()[order, None],
        pieces=pieces,
        first_pieces=F.pad(piece[starts[:-1]], (0, 1), value=len(pieces) - 1),
        neighbours=_neighbours(sorted_codes[starts[:-1]], steps),
    )
    return _normalised(lattice)


def _normalised(lattice: Lattice) -> Lattice:
    """The same lattice with n in its weights."""
    ones = lattice.weights.new_ones(lattice.weights.shape[1], 1)
    norm = (lattice.filter(ones)[:, 0] + _EPS).rsqrt()
    return Lattice(
        weights=lattice.weights * norm,
        vertices=lattice.vertices,
        points=lattice.points,
        splat_weights=lattice.splat_weights * norm.index_select(0, lattice.points)[:, None],
        pieces=lattice.pieces,
        first_pieces=lattice.first_pieces,
        neighbours=lattice.neighbours,
    )


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns of each point the lower corner of its simplex, its coordinates' ranks in it, and barycentric weights.

    All are (d + 1, N). The order of the float32 operations is that of the released code.
    """
    num_axes = len(features) + 1
    total = torch.zeros_like(features[0])
    elevated = [total] * num_axes
    for axis in range(num_axes - 1, 0, -1):
        scaled = features[axis - 1] * (math.sqrt(2 / 3) * num_axes / math.sqrt(axis * (axis + 1)))
        elevated[axis] = total - axis * scaled
        total = total + scaled
    elevated[0] = total
    place = torch.stack(elevated)
    corners = torch.round(place / num_axes)
    surplus = corners.sum(dim=0).to(torch.int32)
    corners *= num_axes
    rest = place - corners
    ranks = torch.zeros_like(rest, dtype=torch.int32)
    for axis in range(num_axes):
        for other in range(axis + 1, num_axes):
            is_less = rest[axis] < rest[other]
            ranks[axis] += is_less
            ranks[other] += ~is_less
    # The nearest corner whose coordinates are multiples of d + 1 may lie off the plane of the lattice.
    ranks += surplus
    shift = num_axes * ((ranks < 0).to(torch.int32) - (ranks >= num_axes).to(torch.int32))
    ranks += shift
    corners += shift
    rest = (place - corners) / num_axes
    descending = torch.stack([rest.where(ranks == rank, 0).sum(dim=0) for rank in reversed(range(num_axes))])
    weights = descending - descending.roll(1, dims=0)
    weights[0] += 1
    return corners, ranks, weights


def _codes(corners: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the codes (d + 1, N) of the points' vertices, the steps along the d + 1 axes, and a bound of the codes.

    Codes and steps are integers: the vertices beside one are its code plus or minus a step. The bound is a float64. The
    last coordinate follows from the others, as they sum to 0. There is room for vertices beside the outermost.
    """
    num_axes = len(corners)
    lowest, highest = (bound.to(torch.float64) for bound in torch.aminmax(corners[:-1], dim=1))
    extents = highest - lowest + 1 + 4 * num_axes
    strides = torch.ones_like(extents, dtype=torch.int64)
    for axis in range(1, num_axes - 1):
        strides[axis] = strides[axis - 1] * extents[axis - 1].to(torch.int64)
    places = corners[:-1].to(torch.int64) - (lowest - 2 * num_axes).to(torch.int64)[:, None]
    base = (places * strides[:, None]).sum(dim=0)
    # Vertex k is the corner plus k in the coordinates of the d + 1 - k lowest ranks and plus k - (d + 1) in the others.
    codes = torch.stack(
        [
            base + k * strides.sum() - num_axes * (strides[:, None] * (ranks[:-1] > num_axes - 1 - k)).sum(dim=0)
            for k in range(num_axes)
        ]
    )
    steps = F.pad(num_axes * strides, (0, 1)) - strides.sum()
    return codes, steps, extents.prod()


def _starts(ids: Tensor, number: int) -> Tensor:
    """Where each of the ids 0 .. number - 1 begins in the sorted ids, and their end."""
    return torch.searchsorted(ids, torch.arange(number + 1, device=ids.device))


def _neighbours(codes: Tensor, steps: Tensor) -> Tensor:
    """Returns `Lattice.neighbours` of the vertices, whose codes are sorted."""
    wanted = codes + torch.stack([steps, -steps], dim=1)[:, :, None]
    found = torch.searchsorted(codes, wanted).clamp_(max=len(codes) - 1)
    return F.pad(found.where(codes[found] == wanted, len(codes)), (0, 1), value=len(codes)).to(torch.int32)
