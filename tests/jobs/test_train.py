"""Training on a cluster of three raylets, its state in a bucket: driver or node killed, the same weights in the end."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from clusters import RayCluster

from raypipe import storage
from raypipe.data.checkpoints import read_metadata
from raypipe.synthetic.generate import generate
from raypipe.training.state import STATE_FILE
from raypipe.training.trainer import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_EPOCHS = 6
LIMIT = 400
"""Seconds after which a training is given up: several times what it takes, for machines with other work."""

CONFIG = """preset: demo
manifest: {bucket}/data/manifest.parquet
out: {bucket}/run
classifier: {{ epochs: {epochs}, batch_size: 8, crop_size: 96, long_side: [96, 128] }}
cluster: {{ address: "{address}", train_workers: 2, gpus_per_train_worker: 0 }}
"""


class Training:
    """The job that trains, as a process of its own, and what it leaves in a folder of the bucket."""

    def __init__(self, bucket: str, name: str, log: Path) -> None:
        self.out = f"{bucket}/{name}"
        self.log = log / name
        self.command = [
            sys.executable,
            "jobs/submit.py",
            "train",
            "classifier",
            f"{bucket}/config.yaml",
            f"out={self.out}",
        ]

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("a") as log:
            return subprocess.Popen(self.command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)

    def finish(self, driver: subprocess.Popen[bytes]) -> None:
        assert driver.wait(timeout=LIMIT) == 0, self.log.read_text()[-3000:]

    def wait_for_checkpoint(self, driver: subprocess.Popen[bytes]) -> list[dict[str, float]]:
        """Until the first one is in the bucket and Ray Train's record names it; the metrics in it."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            assert driver.poll() is None, self.log.read_text()[-3000:]
            for uri in storage.list_files(self.out, suffix="checkpoint_manager_snapshot.json"):
                if results := json.loads(storage.read_bytes(uri))["checkpoint_results"]:
                    state = storage.join(uri.rsplit("/", 1)[0], results[-1]["checkpoint_dir_name"], STATE_FILE)
                    return torch.load(io.BytesIO(storage.read_bytes(state)), weights_only=True)["history"]
            time.sleep(0.3)
        raise TimeoutError(f"no checkpoint below {self.out} after {LIMIT} s")

    @property
    def folder(self) -> str:
        (uri,) = storage.list_files(self.out, suffix="record.json")
        return uri.rsplit("/", 1)[0]

    @property
    def digest(self) -> str:
        return read_metadata(f"{self.folder}/checkpoint", task="classifier")["digest"]


@pytest.mark.slow
@pytest.mark.timeout(4 * LIMIT)
def test_a_lost_driver_and_a_lost_node_change_no_weight(cluster: RayCluster, bucket: str, tmp_path: Path) -> None:
    generate(f"{bucket}/data", num_images=128, sizes=(96, 128))
    config = CONFIG.format(bucket=bucket, epochs=NUM_EPOCHS, address=cluster.address)
    storage.write_bytes_atomic(f"{bucket}/config.yaml", config.encode())
    undisturbed = Training(bucket, "undisturbed", tmp_path)
    undisturbed.finish(undisturbed.start())

    lost_driver = Training(bucket, "lost-driver", tmp_path)
    driver = lost_driver.start()
    before = lost_driver.wait_for_checkpoint(driver)
    driver.kill()
    driver.wait(timeout=60)
    assert not storage.exists(f"{lost_driver.folder}/checkpoint/checkpoint.json")
    lost_driver.finish(lost_driver.start())
    check(lost_driver, before, undisturbed)

    lost_node = Training(bucket, "lost-node", tmp_path)
    driver = lost_node.start()
    before = lost_node.wait_for_checkpoint(driver)
    cluster.kill_node_of("RayTrainWorker")
    lost_node.finish(driver)
    assert "training worker" in lost_node.log.read_text()  # "... failed": the kill came before the end
    check(lost_node, before, undisturbed)


def check(training: Training, before: list[dict[str, float]], undisturbed: Training) -> None:
    """Went on behind the epochs `before` the fault, to the undisturbed training's weights."""
    metrics = read_metrics(training.folder)
    assert [epoch["epoch"] for epoch in metrics] == list(range(NUM_EPOCHS))
    assert 0 < len(before) < NUM_EPOCHS
    assert metrics[: len(before)] == before  # the seconds of each epoch, too: no epoch was trained again
    assert training.digest == undisturbed.digest
