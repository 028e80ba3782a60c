"""The documented commands: a run submitted to a cluster of three raylets, everything in a bucket."""

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import BIN, RayCluster

from raypipe import storage
from raypipe.data.shards import read_shards
from raypipe.schema import MASKS
from raypipe.synthetic.generate import generate

REPOSITORY = Path(__file__).resolve().parents[2]

CONFIG = """preset: demo
manifest: {bucket}/data/manifest.parquet
out: {bucket}/run
classifier: {{ epochs: 1, crop_size: 96, long_side: [96, 128] }}
affinity: {{ epochs: 1, crop_size: 96 }}
segmenter: {{ epochs: 1, crop_size: 96 }}
cams: {{ scales: [1.0] }}
cluster: {{ rows_per_block: 8, cpu_actors: 1, train_workers: 2, gpus_per_train_worker: 0 }}
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["masks", "absent.yaml", "walk.beta=4"], "there is no config file absent.yaml"),
        (["train", "classifier", "absent.yaml"], "there is no config file absent.yaml"),
        (["export", "absent.yaml", "cocoa", "out"], "unknown format 'cocoa'"),
    ],
)
def test_it_is_the_raypipe_command(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/submit.py", *arguments])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPOSITORY / "jobs/submit.py"), run_name="__main__")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_submitted_to_three_raylets(cluster: RayCluster, bucket: str) -> None:
    generate(storage.join(bucket, "data"), num_images=24, sizes=(96, 128))
    config = storage.join(bucket, "config.yaml")
    storage.write_bytes_atomic(config, CONFIG.format(bucket=bucket).encode())
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster.jobs, "--working-dir", "."]
    job = subprocess.run(
        [*command, "--", "python", "jobs/submit.py", "run", config, "walk.beta=4"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    assert "succeeded" in job.stdout
    files = storage.list_files(f"{bucket}/run/masks", suffix=".parquet")
    (folder,) = {uri.rsplit("/", 1)[0] for uri in files if "/shards/" in uri}
    assert read_shards(folder, schema=MASKS).num_rows == 24
    assert storage.exists(f"{bucket}/run/report.html")
    assert "0123456789" not in storage.read_bytes(f"{bucket}/run/config.yaml").decode()


@pytest.mark.slow
def test_without_the_token_nothing_is_accepted(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "9876543210" * 4)
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster.jobs, "--", "echo", "hello"]
    job = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert job.returncode != 0
    assert "hello" not in job.stdout.replace("echo hello", "")
