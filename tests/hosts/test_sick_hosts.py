"""A host whose keys are wrong, and one whose clock is: it blames no row, it is named, and the others do its work.

It is so from the start, which the look at the nodes before a run finds; or once it was restarted, so that the run meets
it: then three requests of it fail before it is left out.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from hosts.outside import Outside
from hosts.ray_hosts import mask_digests, num_quarantined, start_hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(400)]

SOURCE = Path(__file__).with_name("shifted_clock.c")

KEYS = {"AWS_ACCESS_KEY_ID": "a-wrong-key"}

NAMED = {"from the start": "the run leaves them out", "later": "goes on without sick nodes"}
"""What is said in the line that names the host."""


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A wall clock that is 20 minutes late; a machine's monotonic clock is right whatever its date is."""
    if shutil.which("cc") is None:
        pytest.skip("cc is missing, which makes the library that shifts a clock")
    library = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
    return {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": "-1200"}


@pytest.mark.parametrize("when", ["from the start", "later"])
@pytest.mark.parametrize(
    ("env", "code"),
    [
        pytest.param(KEYS, "InvalidAccessKeyId", id="keys"),
        pytest.param(None, "RequestTimeTooSkewed", id="clock"),
    ],
)
def test_a_sick_host(
    outside: Outside,
    undisturbed: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    env: dict[str, str] | None,
    code: str,
    when: str,
) -> None:
    env = request.getfixturevalue("clock") if env is None else env
    out = f"{outside.bucket}/{code}-{when.replace(' ', '-')}"
    before = outside.refused()
    with start_hosts(("one", "two"), outside.s3, tmp_path, env={"two": env if when != "later" else {}}) as cluster:
        host = cluster.hosts["two"]
        # In the smallest blocks the run outlasts the start of the host and three requests that fail there.
        driver = cluster.start("masks", outside.config, "cluster.rows_per_block=1", out=out)
        if when == "later":
            driver.wait_until(lambda: "Starting execution" in driver.text)
            host.kill_all()
            cluster.start_ray("two", env)
        driver.finish(timeout=300)
    refused = outside.refused().get(f"{host.address} {code}", 0) - before.get(f"{host.address} {code}", 0)
    print(f"{code} {when}: {driver.seconds:.0f} s, {refused} requests refused", *driver.warnings(), sep="\n  ")
    assert refused > 0, "nothing was asked of the host"
    assert mask_digests(out) == undisturbed
    assert num_quarantined(out) == 0
    assert any(NAMED[when] in line and host.address in line for line in driver.text.splitlines()), driver.text[-6000:]
