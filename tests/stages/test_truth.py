from pathlib import Path

import pyarrow as pa

from raypipe.stages.base import with_error_columns
from raypipe.stages.truth import LoadTrueMasks


def test_true_masks_stand_where_masks_do(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a mask")
    rows = [{"image_id": "a", "mask_uri": str(tmp_path / "a.png")}, {"image_id": "b", "mask_uri": str(tmp_path / "b")}]
    found, absent = LoadTrueMasks()(with_error_columns(pa.Table.from_pylist(rows))).to_pylist()
    assert (found["mask"], found["confidence"], found["error_stage"]) == (b"a mask", None, None)
    assert absent["error_stage"] == "LoadTrueMasks"
