"""A real Ray cluster for the whole folder: what the documented commands start, on one machine."""

import os
from collections.abc import Iterator

import pytest
from clusters import BIN, RayCluster, start_cluster

from raypipe.streams.job import GPU_DEVICE


@pytest.fixture
def cluster(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """Three raylets with a token; all that they run inherits where the S3 server is."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789" * 4)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv(GPU_DEVICE, "cpu")  # one node says that it has a GPU
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")  # where nodes find `python`
    with start_cluster() as started:
        yield started
