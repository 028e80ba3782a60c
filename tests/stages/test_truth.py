from pathlib import Path

import numpy as np
import pytest

from raypipe.data.images import encode_png
from raypipe.stages.truth import LoadTruths


def test_the_file_as_it_is(tmp_path: Path) -> None:
    data = encode_png(np.array([[0, 1, 255]], np.uint8))
    (tmp_path / "truth.png").write_bytes(data)
    assert LoadTruths(num_classes=2).process({"mask_uri": str(tmp_path / "truth.png")}) == {"truth": data}


def test_values_that_are_no_class_ids_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "truth.png").write_bytes(encode_png(np.array([[0, 7]], np.uint8)))
    with pytest.raises(ValueError, match=r"the true mask has values \[7\], but class ids end at 1"):
        LoadTruths(num_classes=2).process({"mask_uri": str(tmp_path / "truth.png")})
