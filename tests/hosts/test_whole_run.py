"""The documented commands on hosts: the whole run, submitted as a job, with the token; and nothing without it."""

import subprocess
from pathlib import Path

import pytest
from hosts.outside import Outside
from hosts.ray_hosts import BIN, REPOSITORY, mask_digests, start_hosts

from raypipe import storage
from raypipe.synthetic.generate import generate

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]

NUM_IMAGES = 24

CONFIG = """preset: demo
manifest: {bucket}/whole/manifest.parquet
out: {bucket}/whole/run
classifier: {{ epochs: 1, crop_size: 96, long_side: [96, 128] }}
affinity: {{ epochs: 1, crop_size: 96 }}
cams: {{ scales: [1.0] }}
cluster: {{ rows_per_block: 8, cpu_actors: 1, train_workers: 2, gpus_per_train_worker: 0 }}
"""

SUBMIT = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265"]


def test_a_whole_run(outside: Outside, tmp_path: Path) -> None:
    generate(f"{outside.bucket}/whole", num_images=NUM_IMAGES, sizes=(96, 128))
    storage.write_bytes_atomic(f"{outside.bucket}/whole/c.yaml", CONFIG.format(bucket=outside.bucket).encode())
    with start_hosts(("one", "two"), outside.s3, tmp_path, dashboard=True) as cluster:
        # Ray Train asks this server, at the driver's node, whether its controller lives.
        words = [BIN / SUBMIT[0], *SUBMIT[1:], "--working-dir", ".", "--", "python", "jobs/submit.py"]
        with (tmp_path / "job.log").open("wb") as log:
            command = [*words, "run", f"{outside.bucket}/whole/c.yaml"]
            job = cluster.head.start(*command, env=cluster.env, log=log, cwd=REPOSITORY)
        assert job.wait(timeout=500) == 0, (tmp_path / "job.log").read_text()[-6000:]
        done = subprocess.run(
            cluster.head.command(BIN / SUBMIT[0], *SUBMIT[1:], "--", "echo", "hel" + "lo"),
            env=cluster.env | {"RAY_AUTH_TOKEN": "9876543210" * 4},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode != 0
    assert "succeeded" not in done.stdout
    assert len(mask_digests(f"{outside.bucket}/whole/run")) == NUM_IMAGES
    assert storage.exists(f"{outside.bucket}/whole/run/report.html")
