"""Training on real Ray Train workers: repeatable, the same on two workers, resumed after a process was killed.

Of the segmentation network, whose training has all parts: validation, best weights.
"""

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from PIL import Image
from ray import cloudpickle
from ray.train import ScalingConfig
from torch import Tensor

from raypipe.config import TrainingSection, load_config
from raypipe.data.checkpoints import Checkpoint, read_checkpoint
from raypipe.data.images import encode_png
from raypipe.training.attempts import NoProgress
from raypipe.training.loop import Feed, LoopSettings, unchecked
from raypipe.training.order import Position, worker_draws
from raypipe.training.state import read_state
from raypipe.training.tasks import SegmenterTask
from raypipe.training.trainer import (
    TrainingBlind,
    TrainingDiverged,
    last_state,
    read_metrics,
    restored_sigint,
    train,
)
from raypipe.training.validation import Validation

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

TASK = SegmenterTask(
    backbone="tiny",
    weights=None,
    preprocessing=None,
    num_classes=2,
    head="lraspp",
)


@dataclass(frozen=True, kw_only=True)
class Diverging(SegmenterTask):
    """Its loss is no number from the second epoch on."""

    diverged: bool = False

    def at_epoch(self, epoch: int, num_epochs: int) -> "Diverging":  # noqa: ARG002 - as the base has it
        return replace(self, diverged=epoch == 1)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        return super().loss(sums, counts) * (float("nan") if self.diverged else 1)


ON_CTRL_C = signal.getsignal(signal.SIGINT)
"""What it does before any training; what started the tests may have it ignored."""

NUM_IMAGES = 10
FAULT = Position(1, 1)
"""In the middle of the second epoch."""


def make_feed(section: TrainingSection, *, log: Path | None = None, fault: str | None = None) -> Feed:
    """Striped and plain crops; at `FAULT`, with the state of there saved, something happens.

    Args:
        section: the training's.
        log: tells where each start of a worker began.
        fault: `worker` or `controller` are killed once, `error` is raised at each start; `most` of each batch's
            images can't be read.
    """

    def feed(begin: Position, rank: int, world_size: int) -> Iterator[pa.Table]:
        if log is not None:
            with log.open("a") as file:
                file.write(f"{begin.epoch}.{begin.step} ")
        ids = pa.array([str(index) for index in range(NUM_IMAGES)])
        num_rows = len(range(rank, section.batch_size, world_size))
        for epoch in range(begin.epoch, section.epochs):
            indices, _ = worker_draws(
                ids, seed=0, epoch=epoch, batch_size=section.batch_size, rank=rank, world_size=world_size
            )
            for step in range(begin.step if epoch == begin.epoch else 0, len(indices) // num_rows):
                if log is not None and (epoch, step) == FAULT:
                    if begin == (0, 0):
                        wait_for_state(log.parent / "out")
                        if fault == "worker":
                            os.kill(os.getpid(), signal.SIGKILL)
                        elif fault == "controller":
                            kill_controller()
                    if fault == "error":
                        raise OverflowError("this image can't be drawn")
                some = indices[step * num_rows : (step + 1) * num_rows]
                yield make_batch(some, unreadable=3 if fault == "most" else 0)

    return feed


def wait_for_state(folder: Path) -> None:
    """Until Ray Train's controller knows of the state at `FAULT`: the worker doesn't wait for it to be uploaded."""
    for _ in range(900):
        for file in folder.rglob("checkpoint_manager_snapshot.json"):
            results = json.loads(file.read_text() or "{}").get("checkpoint_results")  # empty while it is written
            if results and results[-1]["metrics"] == FAULT._asdict():
                return
        time.sleep(0.1)
    raise TimeoutError(f"no state of {FAULT} in {folder} after 90 seconds")


def kill_controller() -> None:
    """SIGKILL to this Ray's, which another process on this machine may have, too."""
    raylet = psutil.Process().parent()
    assert raylet is not None
    (controller,) = [each for each in raylet.children() if any("TrainController" in word for word in each.cmdline())]
    controller.kill()
    time.sleep(60)  # this worker ends with it


def make_image(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of class 1 or 2 in the left half, noise in the right."""
    crop = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    crop[:, : 16 : 2 + index % 2] = 255
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 1 + index % 2
    return crop, mask


def validation_feed(rank: int, world_size: int) -> Iterator[pa.Table]:
    for index in range(rank, 4, world_size):
        crop, mask = make_image(100 + index)
        buffer = io.BytesIO()
        Image.fromarray(crop).save(buffer, format="PNG")
        row = {"image": buffer.getvalue(), "mask": encode_png(mask), "error_stage": None}
        yield pa.Table.from_pylist([row])


def make_batch(indices: np.ndarray, *, unreadable: int = 0) -> pa.Table:
    crops, targets = [], []
    for index in indices.tolist():
        crop, mask = make_image(index)
        crops.append(crop.tobytes())
        targets.append(mask.tobytes() + bytes([index % 3 == 0]))
    errors = ["DecodeImages"] * unreadable + [None] * (len(crops) - unreadable)
    none = {"colours": pa.nulls(len(crops)), "error_stage": pa.array(errors[: len(crops)], pa.string())}
    return pa.table({"crop": crops, "target": targets, **none})


def run(
    folder: Path,
    *,
    num_workers: int = 1,
    log: Path | None = None,
    fault: str | None = None,
    task: SegmenterTask = TASK,
    state_seconds: float | None = None,
    max_failures: int = 1,
    check: Callable[[], None] = unchecked,
    check_state: Callable[[], None] = unchecked,
) -> Checkpoint:
    options = ["manifest=m", "out=o", "network.backbone=tiny", "network.weights=null", "precision=fp32"]
    options += ["segmenter.epochs=2", "segmenter.batch_size=4", "segmenter.crop_size=32", "segmenter.lr=1e-3"]
    training = load_config("", [*options, "optimizer.new_lr_factor=1"]).training("segmenter")
    validation = Validation(feed=validation_feed, num_classes=3, max_side=64, precision="fp32")
    settings = LoopSettings(
        task=task,
        training=training,
        feed=make_feed(training.section, log=log, fault=fault),
        num_images=NUM_IMAGES,
        threads=1,
        state_seconds=state_seconds or (600 if fault is None else 1e-3),  # the latter is after every step
        validation=validation,
        check=check_state,
    )
    scaling = ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": 1})
    return train(
        settings, folder=str(folder), classes=("a", "b"), scaling=scaling, check=check, max_failures=max_failures
    )


@pytest.fixture(scope="module")
def undisturbed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def test_leaves_a_checkpoint_metrics_and_a_log(undisturbed: tuple[Path, Checkpoint]) -> None:
    folder, checkpoint = undisturbed
    assert read_checkpoint(str(folder / "checkpoint"), task="segmenter").digest == checkpoint.digest
    metrics = read_metrics(str(folder))
    assert [epoch["num_images"] for epoch in metrics] == [12, 12]  # 10 images in batches of 4, filled up
    assert metrics[1]["loss"] < metrics[0]["loss"]
    assert all(0 < epoch["mean_iou"] < 1 for epoch in metrics)
    assert json.loads((folder / "checkpoint" / "checkpoint.json").read_text())["digest"] == checkpoint.digest
    assert signal.getsignal(signal.SIGINT) is ON_CTRL_C, "Ctrl-C ends what follows, as before"


@pytest.mark.parametrize("fault", ["worker", "controller"])
def test_a_killed_process_changes_nothing(
    undisturbed: tuple[Path, Checkpoint], tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = run(tmp_path / "out", log=tmp_path / "log", fault=fault)
    assert (tmp_path / "log").read_text() == "0.0 1.1 "
    assert checkpoint.digest == undisturbed[1].digest
    metrics, expected = (read_metrics(str(folder)) for folder in (tmp_path / "out", undisturbed[0]))
    names = ("loss", "loss_mask", "loss_weak", "num_images", "epoch", "lr", "mean_iou")
    assert [[epoch[name] for name in names] for epoch in metrics] == [
        [epoch[name] for name in names] for epoch in expected
    ]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "raypipe.training.attempts"]
    assert "goes on from epoch 1, step 1" in warning
    assert {"worker": "training worker 0 failed", "controller": "controller was lost"}[fault] in warning


@pytest.mark.slow
def test_killed_workers_of_three_change_nothing(local_ray: None, tmp_path: Path) -> None:
    """Their sums are rounded by how gradients are sent together, which a start has to find out first."""
    task = replace(TASK, backbone="mobilenet_v2")
    whole = run(tmp_path / "whole", num_workers=3, task=task)
    killed = run(tmp_path / "out", num_workers=3, task=task, log=tmp_path / "log", fault="worker")
    assert (tmp_path / "log").read_text() == "0.0 " * 3 + "1.1 " * 3
    assert killed.digest == whole.digest


def test_a_training_that_failed_goes_on_by_the_same_command(
    local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert last_state(str(tmp_path / "out")) is None
    with pytest.raises(NoProgress, match=r"1 failures .* can't be drawn.* epoch 1, step 1 .*the same command goes on"):
        run(tmp_path / "out", log=tmp_path / "log", fault="error", max_failures=0)
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level("INFO", logger="ray.train"):
        assert last_state(str(tmp_path / "out")) is not None
    assert (capfd.readouterr().err, caplog.messages) == ("", [])
    run(tmp_path / "out", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "0.0 1.1 "


def test_two_workers_learn_the_same(undisturbed: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    run(tmp_path, num_workers=2)
    losses, scores = (
        [[epoch[name] for epoch in read_metrics(str(folder))] for folder in (undisturbed[0], tmp_path)]
        for name in ("loss", "mean_iou")
    )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    np.testing.assert_allclose(scores[0], scores[1], atol=0.01)


def test_a_training_without_images_ends_in_its_first_epoch(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingBlind, match=r"9 of 12 images of epoch 0 couldn't be read.*raypipe doctor"):
        run(tmp_path, fault="most", state_seconds=600)
    assert not (tmp_path / "checkpoint").exists()


def test_divergence_names_the_last_good_state_and_which_knob_to_turn(local_ray: None, tmp_path: Path) -> None:
    message = r"the loss of epoch 1 is nan after step 1; the last good state is that of epoch 1, step 0 \(.*checkpoint_"
    with pytest.raises(TrainingDiverged, match=message + r".*lower segmenter\.lr"):
        run(tmp_path, task=Diverging(**vars(TASK)), state_seconds=1e-3)
    assert not (tmp_path / "checkpoint").exists()
    for file in tmp_path.rglob("state.pt"):
        assert all(value.isfinite().all() for value in read_state(str(file.parent))["network"].values())


def test_once_another_run_has_begun_nothing_is_written(local_ray: None, tmp_path: Path) -> None:
    starts = []

    def check() -> None:
        starts.append("")
        if len(starts) == 2:
            raise RuntimeError("it has begun")

    def check_state() -> None:
        raise RuntimeError("another run has begun")

    with pytest.raises(RuntimeError, match=r"^it has begun"):
        run(tmp_path, check=check, check_state=check_state, state_seconds=1e-3, max_failures=9)
    assert not [*tmp_path.rglob("state.pt")]
    assert not (tmp_path / "checkpoint").exists()


def test_an_interrupted_training_is_an_interrupt_like_others() -> None:
    def end() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ray Train's handler
        sys.exit(1)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), restored_sigint():
        end()
    assert signal.getsignal(signal.SIGINT) is before
