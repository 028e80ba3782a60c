"""Runs a training on Ray Train, and writes a checkpoint, metrics for each epoch and a TensorBoard log."""

import json
import logging
import math
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from torch.utils.tensorboard import SummaryWriter

from raypipe import storage
from raypipe.data.checkpoints import CHECKPOINT, Checkpoint, write_checkpoint
from raypipe.training.loop import LoopSettings, train_on_worker
from raypipe.training.state import read_state

METRICS_FILE = "metrics.jsonl"
RUN = "ray_train"
"""Ray Train's folder, with the state after each epoch, from which an interrupted run goes on."""


logger = logging.getLogger(__name__)


class ReportFailures(UserCallback):
    """Logs as a warning why workers are started again; Ray Train logs it among its routine messages."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Logs the workers' errors; Ray Train calls this on its controller."""
        for rank, error in worker_exceptions.items():
            logger.warning("training worker %d failed: %s", rank, error)


class TrainingDiverged(ValueError):  # noqa: N818 - the standard term
    """The loss is no longer finite."""


def train(
    settings: LoopSettings,
    *,
    folder: str,
    classes: tuple[str, ...],
    scaling: ScalingConfig,
    max_failures: int = 3,
) -> Checkpoint:
    """Trains a network, or continues an interrupted training of the same folder.

    Args:
        settings: task, config, data.
        folder: URI of the folder that gets `checkpoint/`, `metrics.jsonl` and `tensorboard/`.
        classes: the dataset's class names, which the checkpoint stores.
        scaling: workers and their resources.
        max_failures: how often the group is started again after a worker's death.
    """
    # Otherwise Ray Train logs what workers print, and the progress bar's messages to the driver come late, or apart
    # from the line break after them.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # Workers wait at an epoch's end until the controller looks at them, which it does every two seconds otherwise: as
    # long as a small epoch takes.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    fs, path = storage.arrow_filesystem(folder)
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config={"settings": settings},
        scaling_config=scaling,
        run_config=RunConfig(  # type: ignore[call-arg] # seen as that of Ray Train's first version
            name=RUN,
            storage_path=path,
            storage_filesystem=fs,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            # Its reports of every epoch would push the progress bar off the screen.
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[ReportFailures()],  # type: ignore[list-item]
        ),
    )
    with restored_sigint():
        result = trainer.fit()
    if result.checkpoint is None:
        raise RuntimeError(f"the training in {folder} ended without a checkpoint: {result.error}")
    with result.checkpoint.as_directory() as state_folder:
        state = read_state(state_folder)
    last = state["history"][-1]
    if not math.isfinite(last["loss"]):
        training = settings.training
        raise TrainingDiverged(
            f"{settings.task.name}: the loss of epoch {last['epoch']} is {last['loss']}; "
            f"lower {settings.task.name}.lr ({training.section.lr}) or optimizer.new_lr_factor "
            f"({training.optimizer.new_lr_factor})"
        )
    network = settings.task.build()
    checkpoint = Checkpoint(
        task=settings.task.name,
        backbone=settings.task.backbone,
        classes=classes,
        preprocessing=network.preprocessing.to_dict(),
        config=settings.training.model_dump(mode="json"),
        weights=state["weights"],
    )
    write_metrics(state["history"], folder)
    write_checkpoint(checkpoint, storage.join(folder, CHECKPOINT))
    return checkpoint


@contextmanager
def restored_sigint() -> Iterator[None]:
    """Puts back what Ctrl-C did: Ray Train leaves a handler that goes on aborting its finished training instead."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
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
