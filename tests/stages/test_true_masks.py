from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.data.images import encode_png
from raypipe.stages.base import with_error_columns
from raypipe.stages.true_masks import LoadTrueMasks


def test_true_masks_stand_where_masks_do(tmp_path: Path) -> None:
    data = encode_png(np.array([[0, 1, 255]], np.uint8))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "c.png").write_bytes(encode_png(np.array([[0, 7]], np.uint8)))
    rows = [{"image_id": name, "mask_uri": str(tmp_path / f"{name}.png")} for name in "abc"]
    stage = LoadTrueMasks(num_classes=2)
    found, absent, unknown = stage(with_error_columns(pa.Table.from_pylist(rows))).to_pylist()
    assert (found["mask"], found["confidence"], found["error_stage"]) == (data, None, None)
    assert absent["error_stage"] == "LoadTrueMasks"
    assert "the true mask has values [7], but class ids end at 1" in unknown["error_reason"]
