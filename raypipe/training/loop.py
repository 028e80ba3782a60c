"""The training loop of every network, on one worker of a Ray Train group.

The global batch is fixed. Whether 1, 2 or 3 workers share it, loss and gradient are the same, because sums and counts
are added up over the workers before they are divided.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed
from torch import Tensor

from raypipe.config import Training
from raypipe.networks.cuda import arrange_cuda
from raypipe.screen.worker import Counter, in_worker
from raypipe.training.batch import Batch, to_batch
from raypipe.training.order import Position, num_steps_per_epoch
from raypipe.training.saving import SaveTimer
from raypipe.training.state import TrainingState
from raypipe.training.step import distributed_loss, loss_terms
from raypipe.training.tasks import TrainingTask
from raypipe.training.validation import Validation

Feed = Callable[[Position, int, int], Iterator[pa.Table]]
"""Maps (start, rank, world size) to this worker's parts of all following batches, epoch by epoch."""


def unchecked() -> None:
    """Where nobody else can write to the folder of a training."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What a worker needs for a training."""

    task: TrainingTask
    training: Training
    feed: Feed
    num_images: int
    threads: int
    """Number of torch's threads on this worker."""
    state_seconds: float
    """After so many seconds without a new state the workers save one."""
    validation: Validation | None = None
    """Validates each epoch and keeps the best epoch's weights; None keeps the last epoch's."""
    check: Callable[[], None] = unchecked
    """Raises an error where another run has begun; worker 0 asks before it writes a state."""


DISTRIBUTED = {
    "broadcast_buffers": False,  # BatchNorms are frozen, and nothing else has buffers that change
    "static_graph": True,
    "gradient_as_bucket_view": True,
}
"""What DistributedDataParallel is told: every step uses the same parameters."""

SETTLING_PASSES = 2
"""Passes of a start in which DistributedDataParallel finds out which gradients to send together. Until then, sums of
more than two workers are rounded otherwise, and a training that goes on wouldn't repeat the undisturbed one."""


def train_on_worker(config: dict[str, Any]) -> "Stopped | None":
    """Trains on one worker; Ray Train calls it with `{"settings": LoopSettings}`.

    Returns:
        None; where the training ended early, as it diverged or has no images to learn from, what `Stopped` says.
    """
    in_worker()
    settings: LoopSettings = config["settings"]
    task, training, section = settings.task, settings.training, settings.training.section
    torch.manual_seed(training.seed)
    torch.set_num_threads(settings.threads)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        arrange_cuda()
    network = task.build_pretrained().to(device=device)
    network.to(memory_format=torch.channels_last)
    steps_per_epoch = num_steps_per_epoch(settings.num_images, section.batch_size)
    state = TrainingState(network, training, num_steps=steps_per_epoch * section.epochs)
    start, saved_totals = state.restore()
    wrapped = ray.train.torch.prepare_model(network, move_to_device=False, parallel_strategy_kwargs=DISTRIBUTED)
    wrapped.train()
    if start.epoch == section.epochs:
        return None

    def loss_of(task: TrainingTask, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's loss, and its terms' sums and counts."""
        sums, counts = loss_terms(
            task, wrapped, batch, preprocessing=network.preprocessing, precision=training.precision
        )
        return distributed_loss(task, sums, counts, world_size=world_size), sums, counts

    def report(position: Position, totals: dict[str, Any] | None) -> None:
        if rank == 0:
            settings.check()
        state.report(position, totals, rank=rank)
        timer.saved()

    timer = SaveTimer(seconds=settings.state_seconds)
    batches = settings.feed(start, rank, world_size)
    target_shapes = task.target_shapes(section.crop_size)
    counter = Counter(task.name, steps_per_epoch * section.epochs)
    for epoch in range(start.epoch, section.epochs):
        task = settings.task.at_epoch(epoch, section.epochs)
        totals = EpochTotals(len(task.term_names), device)
        if epoch == start.epoch and saved_totals is not None:
            totals.restore(saved_totals, rank=rank)
        for step in range(start.step if epoch == start.epoch else 0, steps_per_epoch):
            waited = time.perf_counter()
            rows = next(batches)
            totals.seconds_waiting += time.perf_counter() - waited
            batch = to_batch(rows, target_shapes, crop_size=section.crop_size, pinned=device.type == "cuda").to(device)
            if world_size > 1 and Position(epoch, step) == start:
                for _ in range(SETTLING_PASSES):
                    wrapped.zero_grad(set_to_none=True)
                    torch.autograd.backward(loss_of(task, batch)[0])
            # Each step and worker has its own random numbers, so a resumed training repeats the undisturbed one.
            torch.manual_seed(hash((training.seed, epoch, step, rank)) % 2**63)
            loss, sums, counts = loss_of(task, batch)
            state.step(loss)
            totals.add(sums, counts, valid=batch.valid)
            if rank == 0:
                counter.tell(epoch * steps_per_epoch + step + 1)
            if step + 1 < steps_per_epoch and timer.is_due():
                so_far = totals.metrics(task)
                if _is_blind(so_far) or not _all_finite(state, so_far["loss"], device):
                    return _stopped(so_far, Position(epoch, step + 1))
                report(Position(epoch, step + 1), totals.over_workers())
        metrics = totals.metrics(task) | {"epoch": epoch, "lr": state.lr}
        if _is_blind(metrics) or not _all_finite(state, metrics["loss"], device):
            return _stopped(metrics, Position(epoch, steps_per_epoch))
        if settings.validation is not None:
            metrics["mean_iou"] = settings.validation.mean_iou(network, rank, world_size)
        state.finish_epoch(metrics)
        if timer.is_due() or epoch + 1 == section.epochs:
            report(Position(epoch + 1, 0), None)
    return None


class Stopped(TypedDict):
    """A training that ended early."""

    epoch: int
    step: int
    """Steps of the epoch that were taken."""
    loss: float
    """Over them."""
    num_images: int
    """Of them."""
    num_unreadable: int


def _stopped(metrics: dict[str, Any], position: Position) -> Stopped:
    return Stopped(
        epoch=position.epoch,
        step=position.step,
        loss=metrics["loss"],
        num_images=metrics["num_images"],
        num_unreadable=metrics["num_unreadable"],
    )


def _is_blind(metrics: dict[str, Any]) -> bool:
    """Whether more than half of the images couldn't be read: what is learned without them is worth nothing."""
    return bool(2 * metrics["num_unreadable"] > metrics["num_images"])


def _all_finite(state: TrainingState, loss: float, device: torch.device) -> bool:
    """Whether all workers' losses, weights and optimisers are finite, which all of them are told."""
    bad = torch.tensor(not (math.isfinite(loss) and state.is_finite()), dtype=torch.float32, device=device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(bad)
    return not bad.item()


class EpochTotals:
    """Sums of an epoch on one worker. They stay on the device, so a step never waits for it."""

    def __init__(self, num_terms: int, device: torch.device) -> None:
        self.totals = torch.zeros(2 * num_terms + 2, dtype=torch.float64, device=device)
        self.seconds_waiting = 0.0
        self.started = time.perf_counter()

    def add(self, sums: Tensor, counts: Tensor, *, valid: Tensor) -> None:
        """Adds a step; `valid` (B,) is True for images that could be read."""
        images = torch.stack([torch.ones_like(valid).sum(), (~valid).sum()])
        self.totals += torch.cat([sums.detach().double(), counts.detach().double(), images])

    def over_workers(self) -> dict[str, Any]:
        """Sums over all workers, and this worker's seconds, which `restore` takes."""
        totals = self.totals.clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(totals)
        seconds = time.perf_counter() - self.started
        return {"totals": totals.cpu(), "seconds": seconds, "seconds_waiting": self.seconds_waiting}

    def restore(self, saved: dict[str, Any], *, rank: int) -> None:
        """Goes on from sums over all workers of then, which worker 0 takes, however many there are now."""
        if rank == 0:
            self.totals += saved["totals"].to(self.totals.device)
        self.started -= saved["seconds"]
        self.seconds_waiting += saved["seconds_waiting"]

    def metrics(self, task: TrainingTask) -> dict[str, Any]:
        """Returns metrics over all workers: losses, images, throughput and the share of time spent waiting for data."""
        found = self.over_workers()
        totals, seconds = found["totals"], found["seconds"]
        num_terms = len(task.term_names)
        sums, counts = totals[:num_terms], totals[num_terms : 2 * num_terms]
        num_images, num_unreadable = totals[-2:].tolist()
        means = (sums / counts.clamp(min=1)).tolist()
        return {
            "loss": task.loss(sums, counts).item(),
            **dict(zip(task.metric_names, means, strict=True)),
            "num_images": int(num_images),
            "num_unreadable": int(num_unreadable),
            "seconds": seconds,
            "images_per_second": num_images / seconds,
            "share_waiting": self.seconds_waiting / seconds,
        }
