"""Renders the review queue as a gallery: one HTML file that fetches nothing and has no scripts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.cards import make_card
from raypipe.reports.page import class_colors, render_page
from raypipe.reports.pictures import draw_mask, thumbnail


def review_card(
    row: Mapping[str, Any],
    *,
    pixels: NDArray[np.uint8] | None,
    mask: NDArray[np.uint8],
    explanation: str | None = None,
) -> dict[str, Any]:
    """Returns a card of the gallery.

    Args:
        row: of the queue, by the schema `REVIEW`, with `labels`.
        pixels: (H, W, 3), RGB; None if the photograph can no longer be read.
        mask: (H, W) class ids.
        explanation: relative URL of the page of everything that led to the mask; None where there is none.
    """
    photo = thumbnail(np.full((*mask.shape, 3), 128, np.uint8) if pixels is None else pixels)
    drawn = {"photograph": None if pixels is None else photo, "mask": draw_mask(photo, mask)}
    values = {name: row[name] for name in ("rank", "gain", "predicted_iou", "reason")}
    return make_card(row["image_id"], row["labels"] or (), drawn, explanation=explanation, **values)


def render_review(
    cards: Iterable[Mapping[str, Any]],
    *,
    title: str,
    about: Mapping[str, str],
    classes: Sequence[str],
    num_masks: int,
) -> str:
    """Renders the queue as a self-contained HTML page.

    Args:
        cards: cards in the order of their rank; only their small pictures stay in memory.
        title: the page's.
        about: what stands below it: dataset, folder, settings, date.
        classes: names of the class ids 1..C.
        num_masks: number of masks that were ranked.
    """
    legend = class_colors(classes)
    shown = list(cards)
    return render_page(
        "review.html",
        title=title,
        about=about,
        legend=legend,
        cards=shown,
        num_explained=sum(card["explanation"] is not None for card in shown),
        num_masks=num_masks,
    )
