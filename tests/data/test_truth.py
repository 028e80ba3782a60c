from pathlib import Path

import numpy as np
import pytest

from raypipe.data.images import encode_png
from raypipe.data.truth import check_truth, read_truth


def test_mask_and_a_digest_of_its_values(tmp_path: Path) -> None:
    mask = np.array([[0, 2, 255], [1, 1, 0]], np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(mask))
    (tmp_path / "b.png").write_bytes(encode_png(mask[::-1].copy()))
    truth, digest = read_truth(str(tmp_path / "a.png"), num_classes=3)
    np.testing.assert_array_equal(truth, mask)
    assert digest == read_truth(str(tmp_path / "a.png"), num_classes=3)[1]
    assert digest != read_truth(str(tmp_path / "b.png"), num_classes=3)[1]


def test_values_that_are_no_class_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values \[3, 9\], but class ids end at 2"):
        check_truth(encode_png(np.array([[9, 3, 255, 2]], np.uint8)), num_classes=3)
