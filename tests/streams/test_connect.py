import os
import subprocess
import sys

import psutil
import pytest

from raypipe.config import Cluster
from raypipe.streams.connect import cluster_address

CONNECT = """
import sys, time, ray
from raypipe.config import Cluster
from raypipe.streams.connect import connect
connect(Cluster(num_cpus=1, object_store_memory=100 * 2**20))

@ray.remote
def has_networks():
    return "raypipe.networks" in sys.modules

print(ray.get(has_networks.remote()))
"""


def test_a_local_ray_has_no_dashboard(local_ray: None) -> None:
    """Whoever could use one could run code. Ray starts its process all the same, for usage statistics alone."""
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    assert any("raylet" in command for command in commands)
    served = [command for command in commands if "dashboard.py" in command]
    assert all("--modules-to-load=UsageStatsHead --disable-frontend" in command for command in served)


def test_a_local_rays_processes_import_the_networks_before_they_are_asked_for() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


def test_an_address_comes_from_the_config_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert cluster_address(Cluster()) == "there:1"
    assert cluster_address(Cluster(address="here:1")) == "here:1"
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address(Cluster()) is None
