"""One step of a training up to its loss, apart from the loop that feeds it. Nothing here waits for the device."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from raypipe.config.base import Precision
from raypipe.networks.depthwise import quick_depthwise
from raypipe.networks.precision import autocast
from raypipe.networks.preprocessing import Preprocessing
from raypipe.training.batch import Batch
from raypipe.training.tasks import TrainingTask


def loss_terms(
    task: TrainingTask,
    network: Callable[[Tensor], Any],
    batch: Batch,
    *,
    preprocessing: Preprocessing,
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """Runs a batch through the network; returns the sums and counts (T,) of the task's terms.

    Args:
        task: defines the terms.
        network: the task's, or what wraps it to share its gradient, on the batch's device.
        batch: this worker's part of the batch.
        preprocessing: the network's.
        precision: of convolutions and matrix products; losses are float32.
    """
    crops = preprocessing.normalize(batch.crops).contiguous(memory_format=torch.channels_last)
    with autocast(crops.device, precision), quick_depthwise(crops.device):
        output = network(crops)
    return task.loss_terms(output, batch)


def distributed_loss(task: TrainingTask, sums: Tensor, counts: Tensor, *, world_size: int) -> Tensor:
    """Returns this worker's loss. The mean of its gradient over the workers is the gradient of the whole batch.

        world_size · loss(own sums, counts of all workers)

    Args:
        task: defines the loss.
        sums: (T,) sums of this worker, with gradient.
        counts: (T,) counts of this worker.
        world_size: number of workers, over which DistributedDataParallel averages gradients.
    """
    total_counts = counts.detach().clone()
    if world_size > 1:
        torch.distributed.all_reduce(total_counts)
    return task.loss(sums, total_counts) * world_size
