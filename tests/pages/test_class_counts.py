from pathlib import Path

import numpy as np
import pytest
from stream_outputs import write_masks

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pages.class_counts import count_masks
from raypipe.pipelines.context import Context

CLASSES = ("cat", "dog", "never")
IMAGES = {  # labels, class ids and areas of the mask, predicted IoU
    "one": (["cat"], [0, 1], [0.6, 0.4], 0.8),
    "two": (["cat", "dog"], [0, 1, 2], [0.7, 0.2, 0.1], 0.4),
    "lost": (["dog"], [0], [1.0], None),
    "background": ([], [0], [1.0], 1.0),
    "unseen": (None, [0, 1], [0.5, 0.5], 0.1),
    "waiting": (["cat"], None, None, None),
}
"""The last has no mask yet; of the one before nobody said what it shows."""


@pytest.fixture
def masks(tmp_path: Path) -> Artifact:
    rows = [
        {"image_id": image_id, "class_ids": class_ids, "areas": areas, "predicted_iou": predicted_iou}
        for image_id, (_, class_ids, areas, predicted_iou) in IMAGES.items()
        if class_ids is not None
    ]
    return write_masks(str(tmp_path / "masks"), rows, rows_per_shard=2)


def test_counts_by_hand(masks: Artifact) -> None:
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "labels": labels} for name, (labels, *_) in IMAGES.items()]
    context = Context(load_config("", ["manifest=m", "out=o"]), Manifest.from_rows(rows, CLASSES))
    found = count_masks(context.rows(None), masks, classes=CLASSES, num_labelled=np.array([3, 2, 0]))
    assert (found.num_masks, found.num_empty) == (5, 1)
    assert found.predicted_iou == pytest.approx(0.6)  # of one and two: the others have no label or no prediction
    cat, dog, never = found.classes
    assert (cat.num_labelled, cat.num_masks, cat.num_shown) == (3, 2, 2)
    assert (cat.area, cat.predicted_iou) == pytest.approx((0.3, 0.6))
    assert (dog.num_labelled, dog.num_masks, dog.num_shown) == (2, 2, 1)
    assert (dog.area, dog.predicted_iou) == pytest.approx((0.1, 0.4))
    assert (never.num_labelled, never.num_masks, never.num_shown) == (0, 0, 0)
    assert np.isnan([never.area, never.predicted_iou]).all()
