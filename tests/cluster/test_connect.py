import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray
from ray.util.state import list_nodes

from raypipe.cluster.connect import cluster_address
from raypipe.config import Cluster

NUMBERS = """
import raypipe.cli
from raypipe.cluster import connect

def show(_):
    from ray._raylet import Config
    print(Config.grpc_client_keepalive_time_ms(), Config.grpc_client_keepalive_timeout_ms())
    raise SystemExit

connect.cluster_address = show  # instead of a Ray that takes seconds to start
connect.connect(None)
"""


def listening_addresses(port: int) -> set[str]:
    """Local addresses, in the kernel's hexadecimal, at which something listens on the port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


def test_a_local_rays_dashboard_is_on_loopback_and_asks_for_the_token(local_ray: None) -> None:
    """Whoever may use it, or the ports of Ray itself, can run code."""
    url = os.environ["RAY_API_SERVER_ADDRESS"]
    assert list_nodes(timeout=120)  # asks with the token, and waits for a dashboard that is still starting
    assert listening_addresses(int(url.rsplit(":", 1)[1])) == {"0100007F"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=20)  # noqa: S310 - http, as above
    assert refused.value.code == 401


def test_a_local_ray_is_asked_about_itself_beside_another_one(local_ray: None) -> None:
    """Ray Train ends a training whose controller the state API doesn't know."""
    other = "import ray, sys; ray.init(address='local', num_cpus=1, object_store_memory=100 * 2**20); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", other], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"Started a local Ray instance" in line:
                    break
            nodes = list_nodes()
        finally:
            process.communicate()
    assert [node.node_id for node in nodes] == [ray.get_runtime_context().get_node_id()]


def test_a_host_that_is_cut_off_is_missed_soon() -> None:
    """The driver waits for its tasks; Ray takes these numbers as it is imported, so nothing may import it before."""
    done = subprocess.run([sys.executable, "-c", NUMBERS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "60000 20000\n"


def test_an_address_comes_from_the_config_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert cluster_address(Cluster()) == "there:1"
    assert cluster_address(Cluster(address="here:1")) == "here:1"
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address(Cluster()) is None
