"""Small made-up samples and a report of them."""

from collections.abc import Callable

import numpy as np
import pytest

from raypipe.reports.html import Report, Sample


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """Makes a sample of a size (height, width), of which any part may be replaced."""

    def make(image_id: str = "a/b c.jpg", *, size: tuple[int, int] = (60, 90), **changes) -> Sample:
        height, width = size
        rng = np.random.default_rng(0)
        mask = np.zeros(size, np.uint8)
        mask[height // 3 :, width // 3 :] = 2
        plain = {
            "kind": "best",
            "labels": ("cat",),
            "pixels": rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
            "class_ids": (2,),
            "cam": rng.random((1, -(-height // 4), -(-width // 4)), dtype=np.float32),
            "affinity": rng.random((34, -(-height // 8), -(-width // 8)), dtype=np.float32),
            "walk_mask": mask,
            "mask": mask,
            "segment": mask,
            "truth": np.where(mask == 2, 255, 1).astype(np.uint8),
            "iou": 0.4321,
        }
        return Sample(image_id=image_id, **{**plain, **changes})

    return make


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Makes a report that is empty but for what is given."""

    def make(**changes) -> Report:
        empty = {
            "title": "A report",
            "about": {},
            "classes": ("dog", "cat"),
            "scores": [],
            "gate": "off",
            "decisions": [],
            "curves": {},
            "samples": [],
            "streams": {},
            "quarantine": [],
            "provenance": {},
        }
        return Report(**{**empty, **changes})

    return make
