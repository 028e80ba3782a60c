"""Renders the review queue as a gallery: one HTML file that fetches nothing and has no scripts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.page import class_colors, render_page
from raypipe.reports.pictures import data_uri, draw_mask, thumbnail


@dataclass(frozen=True, kw_only=True)
class ReviewCard:
    """A mask to review."""

    rank: int
    """Place in the queue, from 1."""
    image_id: str
    labels: tuple[str, ...]
    gain: float
    predicted_iou: float
    reason: str
    pixels: NDArray[np.uint8] | None
    """(H, W, 3), RGB; None if the photograph can no longer be read."""
    mask: NDArray[np.uint8]
    """(H, W) class ids."""


def render_review(cards: Iterable[ReviewCard], *, classes: Sequence[str], num_masks: int) -> str:
    """Renders the queue as a self-contained HTML page.

    Args:
        cards: cards in the order of their rank; only their small pictures stay in memory.
        classes: names of the class ids 1..C.
        num_masks: number of masks that were ranked.
    """
    legend = class_colors(classes)
    return render_page(
        "review.html",
        title="Masks to review",
        legend=legend,
        cards=[_card(card, legend) for card in cards],
        num_masks=num_masks,
    )


def _card(card: ReviewCard, legend: dict[str, str]) -> dict[str, Any]:
    missing = card.pixels is None
    photo = thumbnail(np.full((*card.mask.shape, 3), 128, np.uint8) if card.pixels is None else card.pixels)
    return {
        "rank": card.rank,
        "image_id": card.image_id,
        "labels": [(label, legend.get(label)) for label in card.labels],
        "gain": f"{100 * card.gain:.2f}",
        "predicted_iou": f"{card.predicted_iou:.2f}",
        "reason": card.reason,
        "width": photo.shape[1],
        "height": photo.shape[0],
        "photo": None if missing else data_uri(photo),
        "mask": data_uri(draw_mask(photo, card.mask)),
    }
