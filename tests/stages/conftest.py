"""What tests of training crops cut."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def row(tmp_path: Path, jpeg: bytes) -> dict[str, Any]:
    """A row of a manifest whose image is there, for training crops."""
    (tmp_path / "a.jpg").write_bytes(jpeg)
    return {"image_id": "a", "epoch": 3, "repeat": 0, "image_uri": str(tmp_path / "a.jpg"), "labels": ["dog"]}
