"""A host whose keys are wrong, and one whose clock is: it blames no row, it is named, and the others do its work."""

from pathlib import Path

import pytest
from hosts.outside import Outside
from hosts.ray_hosts import mask_digests, num_quarantined, start_hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(400)]

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def check(outside: Outside, undisturbed: dict[str, str], logs: Path, name: str, env: dict[str, str], code: str) -> None:
    out = f"{outside.bucket}/{name}"
    before = outside.refused()
    with start_hosts(("one", "two"), outside.s3, logs, env={"two": env}) as cluster:
        driver = cluster.start("masks", outside.config, out=out)
        driver.finish(timeout=300)
        print(f"{name}: {driver.seconds:.0f} s")
        address = cluster.hosts["two"].address
        refused = outside.refused().get(f"{address} {code}", 0) - before.get(f"{address} {code}", 0)
    assert refused > 0, "the host was never asked to do anything"
    assert mask_digests(out) == undisturbed
    assert num_quarantined(out) == 0
    assert address in driver.text
    print(driver.text)


def test_wrong_keys(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    check(outside, undisturbed, tmp_path, "wrong-keys", {"AWS_ACCESS_KEY_ID": "a-wrong-key"}, "InvalidAccessKeyId")


def test_wrong_clock(outside: Outside, undisturbed: dict[str, str], tmp_path: Path) -> None:
    if not LIBRARY.exists():
        pytest.skip(f"{LIBRARY} is missing: Debian's libfaketime has it")
    env = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": "-20m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    check(outside, undisturbed, tmp_path, "wrong-clock", env, "RequestTimeTooSkewed")
