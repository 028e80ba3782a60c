"""Runs a training on Ray Train, and writes a checkpoint, metrics for each epoch and a TensorBoard log."""

import json
import logging
import math
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch.utils.tensorboard import SummaryWriter

from raypipe import storage
from raypipe.data.checkpoints import CHECKPOINT, Checkpoint, write_checkpoint
from raypipe.training import reservations
from raypipe.training.attempts import fit_until_done, place_of
from raypipe.training.loop import LoopSettings, Stopped, train_on_worker, unchecked
from raypipe.training.state import read_state

METRICS_FILE = "metrics.jsonl"
RUN = "ray_train"
"""Ray Train's folder, with the last states, from which an interrupted run goes on."""


class TrainingDiverged(ValueError):  # noqa: N818 - the standard term
    """The loss or the weights are no longer finite."""


class TrainingBlind(ValueError):  # noqa: N818 - as the one above
    """Most images couldn't be read."""


def train(
    settings: LoopSettings,
    *,
    folder: str,
    classes: tuple[str, ...],
    scaling: ScalingConfig,
    check: Callable[[], None] = unchecked,
    max_failures: int = 3,
) -> Checkpoint:
    """Trains a network, or continues an interrupted training of the same folder.

    Args:
        settings: task, config, data.
        folder: URI of the folder that gets `checkpoint/`, `metrics.jsonl` and `tensorboard/`.
        classes: the dataset's class names, which the checkpoint stores.
        scaling: workers and their resources.
        check: raises an error where this process must write to the folder no more; called before each start of the
            workers, and before the checkpoint is written.
        max_failures: how often in a row, without a new state in between, the training is started again.

    Raises:
        TrainingDiverged: the loss or the weights are no longer finite; such a state is never saved.
        TrainingBlind: more than half of an epoch's images couldn't be read.
        NoProgress: there were more failures.
    """
    # Otherwise Ray Train logs what workers print, and their marked lines come late.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # The controller learns of states, failures and the end when it looks at the workers, which it does every two
    # seconds otherwise: as long as a small training takes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    fs, path = storage.arrow_filesystem(folder)
    states = storage.join(folder, RUN)
    scaling, number = reservations.mark(scaling)

    def fit() -> Result:
        check()
        trainer = TorchTrainer(
            train_on_worker,  # type: ignore[arg-type] # it returns something, which the first version wouldn't take
            train_loop_config={"settings": settings},
            scaling_config=scaling,
            run_config=RunConfig(  # type: ignore[call-arg] # seen as that of Ray Train's first version
                name=RUN,
                storage_path=path,
                storage_filesystem=fs,
                # Ray Train counts all failures of a run together; `fit_until_done` counts those without progress.
                failure_config=FailureConfig(max_failures=0),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            with restored_sigint():
                return trainer.fit()
        except RayActorError:  # the controller was lost
            reservations.free(number)
            raise

    name = f"training of the {settings.task.name}"
    result = fit_until_done(fit, partial(last_state, folder), name=name, folder=states, max_failures=max_failures)
    stopped: Stopped | None = result.return_value  # type: ignore[attr-defined] # the same
    if stopped is not None:
        good = place_of(result, states)
        raise _diverged(settings, good, stopped) if _can_see(stopped) else _blind(settings, stopped)
    assert result.checkpoint is not None, "the last epoch ends with a state"
    with result.checkpoint.as_directory() as state_folder:
        state = read_state(state_folder)
    network = settings.task.build()
    checkpoint = Checkpoint(
        task=settings.task.name,
        backbone=settings.task.backbone,
        classes=classes,
        preprocessing=network.preprocessing.to_dict(),
        config=settings.training.model_dump(mode="json"),
        weights=state["weights"],
    )
    check()
    write_metrics(state["history"], folder)
    write_checkpoint(checkpoint, storage.join(folder, CHECKPOINT))
    return checkpoint


def last_state(folder: str) -> Result | None:
    """The last state of a training, from which it goes on, as of Ray Train; None where none is saved.

    Args:
        folder: URI of the training's folder.
    """
    fs, path = storage.arrow_filesystem(folder)
    rays = logging.getLogger("ray.train")
    level = rays.level
    rays.setLevel(logging.WARNING)  # it remarks on what it finds, and Ray's import has set its own level
    try:
        return Result.from_path(f"{path}/{RUN}", storage_filesystem=fs)
    except RuntimeError:  # nothing is saved
        return None
    finally:
        rays.setLevel(level)


def _can_see(stopped: Stopped) -> bool:
    return 2 * stopped["num_unreadable"] <= stopped["num_images"]


def _blind(settings: LoopSettings, stopped: Stopped) -> TrainingBlind:
    """How many images couldn't be read, and what to do."""
    return TrainingBlind(
        f"{settings.task.name}: {stopped['num_unreadable']} of {stopped['num_images']} images of epoch "
        f"{stopped['epoch']} couldn't be read, so there is little to learn from, and no network was written. `raypipe "
        "doctor CONFIG` names some; mend the manifest's image_uri, or how the workers reach the images"
    )


def _diverged(settings: LoopSettings, good: str | None, stopped: Stopped) -> TrainingDiverged:
    """What became infinite and where, the last good state, and what to change."""
    name, training = settings.task.name, settings.training
    epoch, step, loss = stopped["epoch"], stopped["step"], stopped["loss"]
    what = "" if not math.isfinite(loss) else ", but weights are infinite"
    saved = (
        f"the last good state is that of {good}, from which the same command goes on" if good else "no state was saved"
    )
    return TrainingDiverged(
        f"{name}: the loss of epoch {epoch} is {loss}{what} after step {step}; {saved}; lower {name}.lr "
        f"({training.section.lr}) or optimizer.new_lr_factor ({training.optimizer.new_lr_factor})"
    )


@contextmanager
def restored_sigint() -> Iterator[None]:
    """Makes Ctrl-C the interrupt that it is elsewhere, within and afterwards.

    Ray Train's handler ends the process once the training is aborted, as if all were done. And it stays, and goes on
    aborting its finished training.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def write_metrics(history: list[dict[str, Any]], folder: str) -> None:
    """Writes the metrics of each epoch as JSON lines and for TensorBoard."""
    lines = "".join(json.dumps(metrics) + "\n" for metrics in history)
    storage.write_bytes_atomic(storage.join(folder, METRICS_FILE), lines.encode())
    # TensorBoard's writer can only write to local folders.
    with tempfile.TemporaryDirectory() as local:
        with SummaryWriter(local) as writer:
            for metrics in history:
                for name, value in metrics.items():
                    writer.add_scalar(name, value, global_step=metrics["epoch"])
        for file in Path(local).iterdir():
            storage.write_bytes_atomic(storage.join(folder, "tensorboard", file.name), file.read_bytes())


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Returns the metrics of each epoch of a finished training; an unfinished one has none."""
    uri = storage.join(folder, METRICS_FILE)
    if not storage.exists(uri):
        return []
    return [json.loads(line) for line in storage.read_bytes(uri).decode().splitlines()]
