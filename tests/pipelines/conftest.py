"""A small synthetic dataset for the whole folder."""

from pathlib import Path

import pytest

from raypipe.data.manifest import Manifest
from raypipe.synthetic.generate import generate


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    """URI and content of a manifest of 24 small synthetic images."""
    folder = tmp_path_factory.mktemp("synthetic")
    manifest = generate(str(folder), num_images=24, sizes=(96, 128))
    return str(Path(folder) / "manifest.parquet"), manifest
