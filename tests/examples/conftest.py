from pathlib import Path

import pytest
from finished_runs import write_networks, write_run

from raypipe.data.manifest import Manifest


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, synthetic: tuple[str, Manifest]) -> Path:
    """Config of a finished run on small synthetic images, by networks that know nothing."""
    folder = tmp_path_factory.mktemp("small_run")
    uri, manifest = synthetic
    return Path(write_run(str(folder), uri, write_networks(str(folder), manifest.classes)))
