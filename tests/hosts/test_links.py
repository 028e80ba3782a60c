"""Links that fail, hosts that go away, and a network that loses packets."""

import time
from pathlib import Path

import pytest
from hosts.network import Host
from hosts.outside import Outside
from hosts.ray_hosts import Driver, RayHosts, mask_digests, num_quarantined, start_hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]

LIMIT = 300
"""Seconds that a disturbed run may take."""


def check(driver: Driver, undisturbed: dict[str, str], name: str) -> None:
    driver.finish(timeout=LIMIT)
    print(f"{name}: {driver.seconds:.0f} s", *driver.warnings(), sep="\n  ")
    assert mask_digests(driver.out) == undisturbed
    assert num_quarantined(driver.out) == 0


def start(cluster: RayHosts, outside: Outside, name: str, *overrides: str) -> Driver:
    """A run that has begun to write masks."""
    driver = cluster.start("masks", outside.config, *overrides, out=f"{outside.bucket}/{name}")
    driver.wait_for_rows("masks")
    return driver


def computes(host: Host) -> bool:
    """Whether a process of the host is at work on rows."""
    lines = host.run("ps", "-eo", "args").splitlines()
    return any(line.startswith("ray::Map") for line in lines)


def test_a_link_cut_for_a_minute(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        driver = start(cluster, outside, "cut-for-a-minute")
        cluster.hosts["two"].cut()
        time.sleep(60)
        cluster.hosts["two"].mend()
        check(driver, undisturbed, "cut for a minute")


def test_a_link_cut_for_good(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        driver = start(cluster, outside, "cut-for-good")
        cluster.hosts["two"].cut()
        check(driver, undisturbed, "cut for good")


def test_a_host_that_goes_away_and_comes_back(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Its power fails; it is started again, with another disk, and works on."""
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        driver = start(cluster, outside, "away-and-back", "cluster.rows_per_block=1")  # the smallest: it takes longer
        host = cluster.hosts["two"]
        host.cut()
        host.kill_all()
        time.sleep(10)
        host.mend()
        assert not computes(host)
        cluster.start_ray("two")
        driver.wait_until(lambda: computes(host))
        check(driver, undisturbed, "away and back")


def test_lost_packets(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        cluster.hosts["two"].lose_packets(0.05)
        driver = start(cluster, outside, "lost-packets")
        check(driver, undisturbed, "5 % of packets lost")


def test_a_head_that_is_killed(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """The run ends with it, and says why and what to do; the same command on new hosts goes on."""
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        driver = start(cluster, outside, "head-killed")
        killed = time.monotonic()
        cluster.head.kill("bash")  # what would start Ray again
        cluster.head.kill("gcs_server")
        code = driver.process.wait(timeout=120)
        seconds = time.monotonic() - killed
        print(f"the driver ended {seconds:.0f} s after the head: {code}\n{driver.text[-1500:]}")
        assert code != 0
        assert seconds < 60
        (said,) = [line for line in driver.text.splitlines() if line.startswith("error: ")]
        assert f"the head of the Ray cluster, {cluster.head.address}:" in said
        assert "give the same command" in said
    with start_hosts(("one", "two"), outside.s3, tmp_path) as cluster:
        again = cluster.start("masks", outside.config, out=driver.out)
        check(again, undisturbed, "head killed")
