"""A host with another version of torch, and one whose disk for spilled objects is full."""

from pathlib import Path

import pytest
import torch
from hosts.network import SPILL, Host
from hosts.outside import Outside
from hosts.ray_hosts import Driver, mask_digests, num_quarantined, start_hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(500)]

LIMIT = 300
"""Seconds that a run may take."""


def check(driver: Driver, undisturbed: dict[str, str], said: str) -> None:
    """It completes with equal masks, or ends within a minute with a line that has all of the words."""
    code = driver.process.wait(timeout=LIMIT)
    print(f"{said}: {code} after {driver.seconds:.0f} s\n{driver.text[-3000:]}")
    if code == 0:
        assert mask_digests(driver.out) == undisturbed
        assert num_quarantined(driver.out) == 0
        return
    assert driver.seconds < 60
    assert said in driver.text


def test_another_torch(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    version = Path(torch.__file__).with_name("version.py")
    other = tmp_path / "version.py"
    other.write_text(version.read_text().replace(torch.__version__, "2.0.0"))
    assert "2.0.0" in other.read_text()

    def prepare(hosts: dict[str, Host]) -> None:
        hosts["two"].run("mount", "--bind", other, version)

    with start_hosts(("one", "two"), outside.s3, tmp_path, prepare=prepare) as cluster:
        check(cluster.start("masks", outside.config, out=f"{outside.bucket}/torch"), undisturbed, "torch")


HOARD = """
import ray, sys, time
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(address="auto")
(node,) = [node["NodeID"] for node in ray.nodes() if node["NodeManagerAddress"] == sys.argv[1]]

@ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
class Hoard:
    def fill(self, number):
        self.kept = [ray.put(bytes(5 * 2**20)) for _ in range(number)]

hoard = Hoard.remote()
ray.get(hoard.fill.remote(int(sys.argv[2])))
print("full", flush=True)
time.sleep(3600)
"""
"""Another job, which keeps a host's object store full."""


def test_a_full_spill_disk(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    def prepare(hosts: dict[str, Host]) -> None:
        hosts["two"].run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", SPILL)
        hosts["two"].run("bash", "-c", f"head --bytes 4M /dev/zero > {SPILL}/others || true")

    with start_hosts(("one", "two"), outside.s3, tmp_path, prepare=prepare) as cluster:
        cluster.hoard(HOARD, "two", megabytes=95)
        check(cluster.start("masks", outside.config, out=f"{outside.bucket}/disk"), undisturbed, "disk")
