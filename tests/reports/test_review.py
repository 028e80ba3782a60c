from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.reports.review import render_review, review_card

EVIL = '"><script>alert(1)</script>'
PHOTO = np.zeros((6, 9, 3), np.uint8)


def make_card(pixels: NDArray[np.uint8] | None = PHOTO, **changes: object) -> dict[str, Any]:
    row: dict[str, object] = {
        "rank": 1,
        "image_id": "a",
        "labels": ("cat",),
        "gain": 0.01234,
        "predicted_iou": 0.321,
        "reason": "Predicted IoU 0.32.",
    }
    return review_card(row | changes, pixels=pixels, mask=np.ones((6, 9), np.uint8))


def test_numbers_and_words() -> None:
    page = render_review([make_card()], classes=("cat",), num_masks=1234)
    assert "The 1 of 1,234 masks" in page
    assert "1.23 %" in page
    assert "predicted IoU 0.32" in page
    assert page.count("<img ") == 2


def test_what_comes_from_data_is_escaped() -> None:
    card = make_card(image_id=EVIL, labels=(EVIL,), reason=EVIL)
    page = render_review([card], classes=(EVIL,), num_masks=1)
    assert "<script" not in page


def test_a_photograph_that_is_gone_leaves_the_mask() -> None:
    page = render_review([make_card(pixels=None)], classes=("cat",), num_masks=1)
    assert page.count("<img ") == 1
    assert "can’t be read" in page


def test_an_empty_queue_says_why() -> None:
    assert "There is nothing to review" in render_review([], classes=("cat",), num_masks=0)
