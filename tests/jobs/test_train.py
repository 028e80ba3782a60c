"""Training on a cluster of three raylets, its state in a bucket: what is killed changes no weight."""

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clusters import RayCluster

from raypipe import storage
from raypipe.data.checkpoints import read_metadata
from raypipe.synthetic.generate import generate
from raypipe.training.order import Position
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
cluster: {{ address: "{address}", train_workers: 2, gpus_per_train_worker: 0, state_minutes: 0.01 }}
"""


class Training:
    """The job that trains, as a process of its own, and what it leaves in a folder of the bucket."""

    def __init__(self, bucket: str, name: str, log: Path, *options: str) -> None:
        self.out = f"{bucket}/{name}"
        self.log = log / name
        words = ["jobs/submit.py", "train", "classifier", f"{bucket}/config.yaml", f"out={self.out}", *options]
        self.command = [sys.executable, *words]

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("a") as log:
            return subprocess.Popen(self.command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)

    def finish(self, driver: subprocess.Popen[bytes]) -> None:
        assert driver.wait(timeout=LIMIT) == 0, self.log.read_text()[-3000:]

    def wait_for_state(self, driver: subprocess.Popen[bytes], *, after: tuple[int, int] = (0, 0)) -> Position:
        """Until a later state is in the bucket and Ray Train's record names it."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            assert driver.poll() is None, self.log.read_text()[-3000:]
            if (records := self.records()) and (last := Position(**records[-1]["metrics"])) > after:
                return last
            time.sleep(0.1)
        raise TimeoutError(f"no state after {after} below {self.out} after {LIMIT} s")

    def wait_for_steps(self, driver: subprocess.Popen[bytes]) -> None:
        """Until some are counted."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            assert driver.poll() is None, self.log.read_text()[-3000:]
            if re.search(r"classifier: [1-9][0-9]* of [0-9]+ batches", self.log.read_text()):
                return
            time.sleep(0.1)
        raise TimeoutError(f"no step after {LIMIT} s")

    def records(self) -> list[dict[str, Any]]:
        """What Ray Train has recorded of the last states."""
        records = [
            json.loads(storage.read_bytes(uri))["checkpoint_results"]
            for uri in storage.list_files(self.out, suffix="checkpoint_manager_snapshot.json")
        ]
        return records[0] if records else []

    def history(self) -> list[dict[str, float]]:
        """Metrics of the epochs in the last state."""
        (uri,) = storage.list_files(self.out, suffix="checkpoint_manager_snapshot.json")
        state = storage.join(uri.rsplit("/", 1)[0], self.records()[-1]["checkpoint_dir_name"], STATE_FILE)
        return torch.load(io.BytesIO(storage.read_bytes(state)), weights_only=True)["history"]

    def went_on_from(self) -> list[Position]:
        """The states from which it went on after faults, as of its log."""
        found = re.findall(r"goes on from epoch (\d+), step (\d+)", self.log.read_text())
        return [Position(int(epoch), int(step)) for epoch, step in found]

    @property
    def folder(self) -> str:
        (uri,) = storage.list_files(self.out, suffix="record.json")
        return uri.rsplit("/", 1)[0]

    @property
    def digest(self) -> str:
        return read_metadata(f"{self.folder}/checkpoint", task="classifier")["digest"]


@pytest.fixture
def undisturbed(cluster: RayCluster, bucket: str, tmp_path: Path) -> Training:
    generate(f"{bucket}/data", num_images=128, sizes=(96, 128))
    config = CONFIG.format(bucket=bucket, epochs=NUM_EPOCHS, address=cluster.address)
    storage.write_bytes_atomic(f"{bucket}/config.yaml", config.encode())
    training = Training(bucket, "undisturbed", tmp_path)
    training.finish(training.start())
    return training


@pytest.mark.slow
@pytest.mark.timeout(6 * LIMIT)
def test_lost_drivers_and_nodes_change_no_weight(
    cluster: RayCluster, undisturbed: Training, bucket: str, tmp_path: Path
) -> None:
    lost_driver = Training(bucket, "lost-driver", tmp_path)
    driver = lost_driver.start()
    lost_driver.wait_for_state(driver, after=Position(1, 0))
    driver.kill()
    driver.wait(timeout=60)
    before = lost_driver.history()
    assert not storage.exists(f"{lost_driver.folder}/checkpoint/checkpoint.json")
    lost_driver.finish(lost_driver.start())
    metrics = read_metrics(lost_driver.folder)
    assert 0 < len(before) < NUM_EPOCHS
    assert metrics[: len(before)] == before  # the seconds of each epoch, too: no epoch was trained again
    check(lost_driver, undisturbed)

    lost_nodes = Training(bucket, "lost-nodes", tmp_path)
    driver = lost_nodes.start()
    killed_after = []
    last = Position(0, 0)
    for _ in range(5):
        last = lost_nodes.wait_for_state(driver, after=last)
        killed_after.append(last)
        cluster.kill_node_of("RayTrainWorker")
        cluster.add_node()
    lost_nodes.finish(driver)
    went_on_from = lost_nodes.went_on_from()
    print("killed after", killed_after, "went on from", went_on_from)
    assert len(went_on_from) == 5
    for killed, went_on in zip(killed_after, went_on_from, strict=True):
        assert went_on >= killed, "no more than since the last state is computed again"
    assert "training worker" in lost_nodes.log.read_text()  # "... failed"
    check(lost_nodes, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(6 * LIMIT)
def test_a_node_lost_for_good_leaves_a_narrower_training(
    cluster: RayCluster, undisturbed: Training, bucket: str, tmp_path: Path
) -> None:
    """A notice saves a state at once; without the node, one worker goes on with the whole batch."""
    options = ("cluster.min_train_workers=1", "cluster.state_minutes=30")
    training = Training(bucket, "narrower", tmp_path, *options)
    driver = training.start()
    training.wait_for_steps(driver)
    cluster.drain_node_of("RayTrainWorker", seconds=20)
    noticed = training.wait_for_state(driver)
    assert len(training.records()) == 1
    cluster.kill_node_of("RayTrainWorker")
    training.finish(driver)
    print("noticed at", noticed)
    metrics, expected = (read_metrics(each.folder) for each in (training, undisturbed))
    assert [epoch["num_images"] for epoch in metrics] == [epoch["num_images"] for epoch in expected]
    losses = [[epoch["loss"] for epoch in each] for each in (metrics, expected)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)


def check(training: Training, undisturbed: Training) -> None:
    """Went through all epochs to the undisturbed training's weights."""
    metrics, expected = (read_metrics(each.folder) for each in (training, undisturbed))
    assert [epoch["epoch"] for epoch in metrics] == list(range(NUM_EPOCHS))
    np.testing.assert_allclose([epoch["loss"] for epoch in metrics], [epoch["loss"] for epoch in expected], rtol=1e-9)
    assert training.digest == undisturbed.digest
