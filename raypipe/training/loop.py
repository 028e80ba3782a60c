"""The training loop of every network, on one worker of a Ray Train group.

The global batch is fixed. Whether 1, 2 or 3 workers share it, loss and gradient are the same, because sums and counts
are added up over the workers before they are divided.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.experimental import tqdm_ray
from torch import Tensor

from raypipe.config import Training
from raypipe.networks.cuda import arrange_cuda
from raypipe.training.batch import to_batch
from raypipe.training.order import num_steps_per_epoch
from raypipe.training.state import TrainingState
from raypipe.training.step import distributed_loss, loss_terms
from raypipe.training.tasks import TrainingTask
from raypipe.training.validation import Validation

Feed = Callable[[int, int, int], Iterator[pa.Table]]
"""Maps (first epoch, rank, world size) to this worker's parts of all following batches, epoch by epoch."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What a worker needs for a training."""

    task: TrainingTask
    training: Training
    feed: Feed
    num_images: int
    threads: int
    """Number of torch's threads on this worker."""
    validation: Validation | None = None
    """Validates each epoch and keeps the best epoch's weights; None keeps the last epoch's."""


_DISTRIBUTED = {
    "broadcast_buffers": False,  # BatchNorms are frozen, and nothing else has buffers that change
    "static_graph": True,
    "gradient_as_bucket_view": True,
}
"""What DistributedDataParallel is told: every step uses the same parameters."""


def train_on_worker(config: dict[str, Any]) -> None:
    """Trains on one worker; Ray Train calls it with `{"settings": LoopSettings}`."""
    # Ray Train's reports (on the root logger) and Ray Data's plans would push the progress bar off the screen.
    for name, level in {"": logging.WARNING, "ray.data": logging.WARNING, "raypipe": logging.INFO}.items():
        logging.getLogger(name).setLevel(level)
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
    first_epoch = state.restore()
    wrapped = ray.train.torch.prepare_model(network, move_to_device=False, parallel_strategy_kwargs=_DISTRIBUTED)
    wrapped.train()
    if first_epoch == section.epochs:
        return
    batches = settings.feed(first_epoch, rank, world_size)
    target_shapes = task.target_shapes(section.crop_size)
    description = f"{task.name}: {section.epochs} epochs of {settings.num_images} images"
    total = steps_per_epoch * (section.epochs - first_epoch)
    bar: Any = tqdm_ray.tqdm(desc=description, total=total, unit="step") if rank == 0 else None
    for epoch in range(first_epoch, section.epochs):
        task = settings.task.at_epoch(epoch, section.epochs)
        # Each epoch and worker has its own random numbers, so a resumed epoch repeats the undisturbed one.
        torch.manual_seed(hash((training.seed, epoch, rank)) % 2**63)
        totals = EpochTotals(len(task.term_names), device)
        for _ in range(steps_per_epoch):
            waited = time.perf_counter()
            rows = next(batches)
            totals.seconds_waiting += time.perf_counter() - waited
            batch = to_batch(rows, target_shapes, crop_size=section.crop_size, pinned=device.type == "cuda").to(device)
            sums, counts = loss_terms(
                task, wrapped, batch, preprocessing=network.preprocessing, precision=training.precision
            )
            state.step(distributed_loss(task, sums, counts, world_size=world_size))
            totals.add(sums, counts, valid=batch.valid)
            if bar is not None:
                bar.update(1)
        metrics = totals.metrics(task) | {"epoch": epoch, "lr": state.lr}
        if settings.validation is not None:
            metrics["mean_iou"] = settings.validation.mean_iou(network, rank, world_size)
        state.finish_epoch(metrics)
        state.report(rank=rank)
        if not math.isfinite(metrics["loss"]):
            break  # not raised here, because Ray Train would start the workers again, which can't help
    if bar is not None:
        bar.close()


class EpochTotals:
    """Sums of an epoch on one worker. They stay on the device, so nothing waits for it before the epoch's end."""

    def __init__(self, num_terms: int, device: torch.device) -> None:
        self.totals = torch.zeros(2 * num_terms + 2, dtype=torch.float64, device=device)
        self.seconds_waiting = 0.0
        self.started = time.perf_counter()

    def add(self, sums: Tensor, counts: Tensor, *, valid: Tensor) -> None:
        """Adds a step; `valid` (B,) is True for images that could be read."""
        images = torch.stack([torch.ones_like(valid).sum(), (~valid).sum()])
        self.totals += torch.cat([sums.detach().double(), counts.detach().double(), images])

    def metrics(self, task: TrainingTask) -> dict[str, Any]:
        """Returns metrics over all workers: losses, images, throughput and the share of time spent waiting for data."""
        seconds = time.perf_counter() - self.started
        totals = self.totals.clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(totals)
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
