"""One local Ray for the whole folder: starting one costs seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from raypipe.config import Cluster
from raypipe.data.manifest import Manifest
from raypipe.data.synthetic import generate
from raypipe.pipelines.context import start_ray


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    start_ray(Cluster(num_cpus=16, object_store_memory=300 * 2**20))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    """URI and content of a manifest of 24 small synthetic images."""
    folder = tmp_path_factory.mktemp("synthetic")
    manifest = generate(str(folder), num_images=24, sizes=(96, 128))
    return str(Path(folder) / "manifest.parquet"), manifest
