"""The documented commands: a run submitted to a cluster of three raylets, everything in a bucket."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from raypipe import storage
from raypipe.data.shards import read_shards
from raypipe.data.synthetic import generate
from raypipe.schema import MASKS

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

CONFIG = """preset: demo
manifest: {bucket}/data/manifest.parquet
out: {bucket}/run
classifier: {{ epochs: 1, crop_size: 96, long_side: [96, 128] }}
affinity: {{ epochs: 1, crop_size: 96 }}
cams: {{ scales: [1.0] }}
report: {{ num_samples: 1 }}
cluster: {{ rows_per_shard: 8, cpu_actors: 1, train_workers: 2, threads_per_actor: 1, gpus_per_actor: 0.5 }}
"""


@pytest.fixture
def cluster(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head, a node with a GPU and one without, with a token; the address of their job server."""
    gcs, dashboard = (_free_port() for _ in range(2))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789" * 4)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")  # where nodes find `python`
    head = ["--head", "--port", gcs, "--dashboard-port", dashboard, "--num-cpus", 2]
    node = ["--address", f"127.0.0.1:{gcs}", "--num-cpus", 8]
    with ExitStack() as stack:
        # The GPU is one of Ray's logical resources: networks go where it is, and find no CUDA there.
        for number, options in enumerate((head, [*node, "--num-gpus", 1], node), start=1):
            words = [BIN / "ray", "start", "--block", "--object-store-memory", 150 * 2**20, *options]
            process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
            stack.callback(process.wait, timeout=60)
            stack.callback(process.terminate)
            _wait_for(dashboard)
            _wait_for_nodes(f"127.0.0.1:{gcs}", number)
        yield f"http://127.0.0.1:{dashboard}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def _wait_for_nodes(address: str, number: int) -> None:
    command = [str(BIN / "ray"), "status", "--address", address]
    for _ in range(20):
        status = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        active = status.partition("Active:")[2].partition("Pending:")[0]
        if active.count("node_") >= number:
            return
        time.sleep(1)
    raise TimeoutError(f"{number} nodes didn't come; the last status:\n{status}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_submitted_to_three_raylets(cluster: str, bucket: str) -> None:
    generate(storage.join(bucket, "data"), num_images=24, sizes=(96, 128))
    config = storage.join(bucket, "config.yaml")
    storage.write_bytes_atomic(config, CONFIG.format(bucket=bucket).encode())
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster, "--working-dir", "."]
    job = subprocess.run(
        [*command, "--", "python", "jobs/run.py", config, "walk.beta=4"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    assert "succeeded" in job.stdout
    (folder,) = {uri.rsplit("/", 1)[0] for uri in storage.list_files(f"{bucket}/run/masks", suffix=".parquet")}
    assert read_shards(folder, schema=MASKS).num_rows == 24
    assert storage.exists(f"{bucket}/run/report.html")
    assert "0123456789" not in storage.read_bytes(f"{bucket}/run/config.yaml").decode()


@pytest.mark.slow
def test_without_the_token_nothing_is_accepted(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "9876543210" * 4)
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster, "--", "echo", "hello"]
    job = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert job.returncode != 0
    assert "hello" not in job.stdout.replace("echo hello", "")
