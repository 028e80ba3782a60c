"""What all hosts share: the bridge, the S3 server on it, and the masks of a run that nothing disturbs."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from conftest import free_port, serving
from hosts.network import GATEWAY, make_bridge, skip_where_impossible
from hosts.outside import NUM_IMAGES, Outside, fill_bucket
from hosts.ray_hosts import REPOSITORY, mask_digests, num_quarantined, start_hosts

PROXY = REPOSITORY / "tests" / "servers" / "faulty_proxy.py"
KEY = "the-right-key"
LATENCY = 0.3
"""Seconds that the S3 server takes for an answer: so a run of few images lasts, without keeping this machine busy."""


@pytest.fixture(scope="session")
def outside(s3_url: str) -> Iterator[Outside]:
    """The bridge and, on its address, an S3 server that refuses what S3 refuses."""
    skip_where_impossible()
    with ExitStack() as stack:
        stack.enter_context(make_bridge())
        port = free_port()
        command = [sys.executable, str(PROXY), "--host", GATEWAY, "--port", str(port), "--upstream", s3_url]
        faults = ["--rate", "0", "--latency", str(LATENCY), "--keys", KEY, "--clock"]
        s3 = {
            "AWS_ENDPOINT_URL": stack.enter_context(serving([*command, *faults], port, host=GATEWAY)),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "testtest",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        bucket = fill_bucket("hosts")
        yield Outside(s3, bucket, f"{bucket}/config.yaml")


@pytest.fixture(scope="session")
def undisturbed(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the masks of a run on a head and one worker that nothing disturbs."""
    out = f"{outside.bucket}/undisturbed"
    with start_hosts(("one",), outside.s3, tmp_path_factory.mktemp("undisturbed")) as cluster:
        driver = cluster.start("masks", outside.config, out=out)
        driver.finish(timeout=200)
        print(f"undisturbed: {driver.seconds:.0f} s")
    digests = mask_digests(out)
    assert len(digests) == NUM_IMAGES
    assert num_quarantined(out) == 0
    return digests
