"""Fixtures for the whole suite: data that lives outside the repository, and small synthetic inputs."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image

from raypipe.config import Cluster
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.networks import build_affinity_net, build_classifier
from raypipe.pipelines.context import start_ray

REPOSITORY = Path(__file__).resolve().parent.parent


def _shared_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set {variable} to run this test")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of numbers computed by the public reference implementations."""
    return _shared_folder("RAYPIPE_GOLDEN", "golden")


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Folder of a PASCAL VOC 2012 layout."""
    return _shared_folder("RAYPIPE_VOC", "voc")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of pretrained weights."""
    return _shared_folder("RAYPIPE_WEIGHTS", "weights")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for the whole suite: starting one costs seconds."""
    start_ray(Cluster(num_cpus=16, object_store_memory=300 * 2**20))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def classifier_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny classifier of two classes with random weights."""
    return _write_network(tmp_path_factory, "classifier")


@pytest.fixture(scope="session")
def affinity_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny AffinityNet with random weights."""
    return _write_network(tmp_path_factory, "affinity")


def _write_network(tmp_path_factory: pytest.TempPathFactory, task: Task) -> str:
    torch.manual_seed(0)
    network = build_classifier("tiny", num_classes=2) if task == "classifier" else build_affinity_net("tiny")
    checkpoint = Checkpoint(
        task=task,
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={},
        weights=network.state_dict(),
    )
    uri = str(tmp_path_factory.mktemp(task))
    write_checkpoint(checkpoint, uri)
    return uri


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photograph-like image of 83 x 61 pixels (width x height)."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize(
        (83, 61), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    smooth.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
