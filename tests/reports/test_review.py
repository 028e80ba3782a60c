from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.review import render_review, review_card

EVIL = '"><script>alert(1)</script>'
PHOTO = np.zeros((6, 9, 3), np.uint8)


def make_card(
    pixels: NDArray[np.uint8] | None = PHOTO, *, explanation: str | None = None, **changes: object
) -> dict[str, Any]:
    row: dict[str, object] = {
        "rank": 1,
        "image_id": "a",
        "labels": ("cat",),
        "gain": 0.01234,
        "predicted_iou": 0.321,
        "reason": "Predicted IoU 0.32.",
    }
    return review_card(row | changes, pixels=pixels, mask=np.ones((6, 9), np.uint8), explanation=explanation)


def render(*cards: dict[str, Any], classes: tuple[str, ...] = ("cat",), num_masks: int = 1) -> str:
    return render_review(cards, title="Masks to review", about={"folder": "here"}, classes=classes, num_masks=num_masks)


def test_numbers_and_words() -> None:
    page = render(make_card(), num_masks=1234)
    assert "The 1 of 1,234 masks" in page
    assert "1.23 %" in page
    assert "predicted IoU 0.32" in page
    assert page.count("<img ") == 2


def test_what_comes_from_data_is_escaped() -> None:
    card = make_card(image_id=EVIL, labels=(EVIL,), reason=EVIL, explanation=EVIL)
    page = render(card, classes=(EVIL,))
    assert "<script" not in page


def test_a_photograph_that_is_gone_leaves_the_mask() -> None:
    page = render(make_card(pixels=None))
    assert page.count("<img ") == 1
    assert "can’t be read" in page


def test_an_empty_queue_says_why() -> None:
    assert "There is nothing to review" in render(num_masks=0)


def test_a_card_opens_what_led_to_its_mask_where_that_was_written() -> None:
    page = render(make_card(explanation="../../explain/0/a.html"), make_card(image_id="b", rank=2), num_masks=2)
    assert page.count('href="../../explain/0/a.html"') == 3  # name, photograph, mask
    assert page.count("<a ") == 3
    assert "name is a link, here of 1," in page
    assert "<a " not in render(make_card())
    assert "raypipe explain" not in render(make_card())
