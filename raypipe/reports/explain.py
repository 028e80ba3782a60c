"""Renders everything that led to one mask as one HTML file that fetches nothing and has no scripts."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.ops.affinity import pair_offsets
from raypipe.reports.page import class_colors, render_page
from raypipe.reports.pictures import (
    as_uri,
    data_uri,
    draw_affinity,
    draw_cam,
    draw_heat,
    draw_mask,
    draw_plane,
    draw_region,
    thumbnail,
)
from raypipe.schema import GRID_STRIDE

MAX_SIDE = 1024
"""Largest length in pixels of a picture's longer side: these fill the page."""


@dataclass(frozen=True, kw_only=True)
class WalkState:
    """The walk after a number of steps."""

    num_steps: int
    mask: NDArray[np.uint8]
    """(H, W) class ids of the best scores."""
    reach: NDArray[np.float32]
    """(h8, w8): weight of the chosen cell in each cell's score; its sum over all cells isn't constant."""
    scores: tuple[float, ...]
    """Scores of the chosen cell: background, then the labels."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One mask and how it was made. Grids have cells of 8 pixels and may reach beyond the image's borders."""

    image_id: str
    classes: tuple[str, ...]
    """Class names of the class ids 1..C."""
    labels: tuple[str, ...]
    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB, at the working size."""
    class_ids: tuple[int, ...]
    """Class ids of the channels of `cam`."""
    cam: NDArray[np.float32]
    """(K, h, w), 0..1."""
    trimap: NDArray[np.uint8]
    """(h8, w8) class ids, 255 where undecided."""
    cell: tuple[int, int]
    """Row and column of the chosen cell."""
    affinity: NDArray[np.float32]
    """(num_offsets, h8, w8), in the order of `ops.affinity.pair_offsets`."""
    radius: int
    beta: float
    walk: Sequence[WalkState]
    """States of the walk by number of steps; the last is the one that the mask is made of."""
    walk_mask: NDArray[np.uint8] | None
    """Mask before refinement at the original size, or None if nothing was refined."""
    mask_png: bytes
    """Content of the final mask's file."""
    mask: NDArray[np.uint8]
    """The final mask, (original height, original width)."""
    confidence: NDArray[np.uint8]
    """Confidence at the same size; 255 is 1."""
    predicted_iou: float
    truth: NDArray[np.uint8] | None
    class_iou: Mapping[str, float]
    """IoU with the true mask by class name, including the background; empty without a true mask."""
    mean_iou: float | None
    num_different: int
    """Number of pixels in which the run's own mask differs; 0 proves that it was made this way."""
    notes: Sequence[str]
    """How gates and modes affected this mask."""
    settings: Sequence[tuple[str, str]]
    provenance: Sequence[tuple[str, str]]

    def __repr__(self) -> str:
        return f"Explanation({self.image_id!r} of {', '.join(self.labels) or 'no label'})"

    def to_html(self) -> str:
        """The self-contained page that `raypipe explain` writes."""
        return render_explanation(self)

    def _repr_html_(self) -> str:
        """The page in a notebook's cell, in a frame of its own: its style is for a whole page."""
        page = html.escape(self.to_html())
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 0" sandbox></iframe>'


def render_explanation(explanation: Explanation) -> str:
    """Renders the explanation as a self-contained HTML page."""
    photo, classes = thumbnail(explanation.pixels, max_side=MAX_SIDE), explanation.classes
    return render_page(
        "explain.html",
        title=explanation.image_id,
        explanation=explanation,
        legend=class_colors(classes),
        height=photo.shape[0],
        width=photo.shape[1],
        parts=_parts(explanation, photo, classes),
        stride=GRID_STRIDE,
        names=["background", *(classes[class_id - 1] for class_id in explanation.class_ids)],
        neighbours=_crops(explanation),
        mask_file=as_uri(explanation.mask_png, "image/png"),
    )


def neighbourhood(
    affinity: NDArray[np.float32], cell: tuple[int, int], *, radius: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the affinity (h, w) of a cell to each cell around it, and a mask of that neighbourhood.

    The cell's affinity to itself is 1; outside the neighbourhood it is 0.

    Args:
        affinity: (num_offsets, h, w) from `pairwise_affinity`, with each pair at the cell from which its offset starts.
        cell: row and column.
        radius: the paper's gamma.
    """
    _, height, width = affinity.shape
    row, column = cell
    weights, inside = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
    weights[cell], inside[cell] = 1, True
    for plane, (dy, dx) in zip(affinity, pair_offsets(radius).tolist(), strict=True):
        for other, start in (
            ((row + dy, column + dx), cell),
            ((row - dy, column - dx), (row - dy, column - dx)),
        ):
            if 0 <= other[0] < height and 0 <= other[1] < width:
                weights[other], inside[other] = plane[start], True
    return weights, inside


def _parts(explanation: Explanation, photo: NDArray[np.uint8], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns rows of pictures in the order of the pipeline: heading, text, (caption, data URI) pairs."""

    def row(key: str, heading: str, text: str, pictures: Mapping[str, NDArray[np.uint8]]) -> dict[str, Any]:
        encoded = [(caption, data_uri(picture)) for caption, picture in pictures.items()]
        return {"key": key, "heading": heading, "text": text, "pictures": encoded}

    shape = explanation.pixels.shape[:2]
    image = {"photograph": photo, "chosen cell": draw_region(photo, shape, _box(explanation))}
    cams = {
        f"CAM of {classes[class_id - 1]}": draw_cam(photo, explanation.cam[index : index + 1], (class_id,))
        for index, class_id in enumerate(explanation.class_ids)
    }
    if len(cams) > 1:
        cams["strongest of them"] = draw_cam(photo, explanation.cam, explanation.class_ids)
    edges = draw_affinity(photo, explanation.affinity, shape)
    walk = {f"t = {state.num_steps}": draw_mask(photo, state.mask) for state in explanation.walk}
    reach = {f"t = {state.num_steps}": draw_heat(photo, _on_image(state.reach, shape)) for state in explanation.walk}
    masks = {}
    if explanation.walk_mask is not None:
        masks["before refinement"] = draw_mask(photo, explanation.walk_mask)
    masks["confidence, white is sure"] = draw_plane(photo, explanation.confidence.astype(np.float32) / np.float32(255))
    if explanation.truth is not None:
        masks["truth"] = draw_mask(photo, explanation.truth)
    masks["final mask"] = draw_mask(photo, explanation.mask)
    return [
        row("image", "Image", "What the networks see; the box is around the chosen cell.", image),
        row("cams", "Class activation maps", "Heat of each label, with a line at one half.", cams),
        row(
            "trimap",
            "Trimap",
            "What is surely an object (its colour) or background (the photograph); white is unsure. The AffinityNet "
            "learns from trimaps; this image's mask is not made of it.",
            {"trimap": draw_mask(photo, _cells_of_image(explanation.trimap, shape))},
        ),
        row(
            "affinity",
            "Affinity",
            "Dark where neighbouring cells differ, so lines are boundaries.",
            {"mean affinity to the neighbours": edges},
        ),
        row(
            "walk",
            "Random walk",
            "Best score of each pixel after t steps; the last is the one that the mask is made of.",
            walk,
        ),
        row(
            "reach",
            "Reach of the chosen cell",
            "How much of each cell's score after t steps comes from the chosen cell, relative to the largest.",
            reach,
        ),
        row("mask", "Mask", "The last picture is the mask as the run wrote it, reduced to this page.", masks),
    ]


def _box(explanation: Explanation) -> tuple[int, int, int, int]:
    """Returns rows and columns (top, bottom, left, right) of the cells around the chosen one."""
    (row, column), reach = explanation.cell, explanation.radius - 1
    height, width = explanation.affinity.shape[1:]
    return max(0, row - reach), min(height, row + reach + 1), max(0, column - reach), min(width, column + reach + 1)


def _crops(explanation: Explanation) -> list[tuple[str, str]]:
    """Enlarges the cells around the chosen one: photograph, affinities, weights of a step."""
    weights, inside = neighbourhood(explanation.affinity, explanation.cell, radius=explanation.radius)
    step = np.where(inside, weights**explanation.beta, 0)
    top, bottom, left, right = _box(explanation)
    padded = _enlarge(np.zeros((*weights.shape, 3), np.uint8), GRID_STRIDE)
    padded[: explanation.pixels.shape[0], : explanation.pixels.shape[1]] = explanation.pixels
    cells = (slice(top, bottom), slice(left, right))
    crop = _enlarge(padded[GRID_STRIDE * top : GRID_STRIDE * bottom, GRID_STRIDE * left : GRID_STRIDE * right], 3)
    power = f"weight of a step, W to the power of {explanation.beta:g}, relative to staying"
    planes = {"affinity W, 0 to 1": weights, power: step}
    pictures = {"photograph": crop} | {
        caption: draw_heat(crop, _enlarge(plane[cells], 3 * GRID_STRIDE)) for caption, plane in planes.items()
    }
    return [(caption, data_uri(picture)) for caption, picture in pictures.items()]


def _enlarge(plane: NDArray[Any], factor: int) -> NDArray[Any]:
    return np.repeat(np.repeat(plane, factor, axis=0), factor, axis=1)


def _cells_of_image(plane: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Brings a grid to the image's size, cut at its borders."""
    return _enlarge(plane, GRID_STRIDE)[: shape[0], : shape[1]]


def _on_image(plane: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Brings a grid to the image's size, relative to its largest value."""
    return _cells_of_image(plane / max(float(plane.max(initial=0)), 1e-12), shape)
