"""The state of a training, which is kept from epoch to epoch and survives an interruption."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raypipe.config import Training
from raypipe.networks import Network
from raypipe.training.optimizer import build_optimizer, parameter_groups, poly_factor

STATE_FILE = "state.pt"


class TrainingState:
    """Network, optimiser, schedule, metrics of each epoch and the best epoch's weights.

    Attributes:
        network: the network that is trained.
        history: metrics of the finished epochs.
    """

    def __init__(self, network: Network, training: Training, *, num_steps: int) -> None:
        options = training.optimizer
        groups = parameter_groups(
            network,
            lr=training.section.lr,
            new_lr_factor=options.new_lr_factor,
            bias_lr_factor=options.bias_lr_factor,
            weight_decay=options.weight_decay,
        )
        self.network = network
        self.history: list[dict[str, Any]] = []
        self._optimizer = build_optimizer(groups, name=options.name, momentum=options.momentum)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer,
            lambda step: poly_factor(step, num_steps=num_steps, warmup_steps=options.warmup_steps),
        )
        self._best: dict[str, Tensor] | None = None

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    @property
    def weights_to_use(self) -> dict[str, Tensor]:
        """The weights of the best epoch so far if epochs are validated, else those of the last one."""
        return self._best or self.network.state_dict()

    def step(self, loss: Tensor) -> None:
        """Takes one step of the optimiser down a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._schedule.step()

    def finish_epoch(self, metrics: dict[str, Any]) -> None:
        """Records an epoch's metrics, and keeps its weights if its `mean_iou` is the best so far."""
        if "mean_iou" in metrics:
            best = max((past["mean_iou"] for past in self.history), default=-1.0)
            if metrics["mean_iou"] > best:
                self._best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        self.history.append(metrics)

    def report(self, *, rank: int) -> None:
        """Ends an epoch for Ray Train: every worker reports the metrics, and worker 0 the state."""
        import ray.train  # the step of a training needs no Ray

        if rank != 0:
            ray.train.report(self.history[-1])
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(self._parts(), Path(folder) / STATE_FILE)
            ray.train.report(self.history[-1], checkpoint=ray.train.Checkpoint.from_directory(folder))

    def restore(self) -> int:
        """Loads the last checkpoint of this run, if there is one; returns the epoch to go on with."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            state = read_state(folder)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = state["history"]
        if any("mean_iou" in metrics for metrics in self.history):
            self._best = state["weights"]
        return len(self.history)

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": self.history,
            "weights": self.weights_to_use,
        }


def read_state(folder: str) -> dict[str, Any]:
    """Reads what `report` has saved: tensors and metrics, never code. `weights` holds the `weights_to_use`."""
    state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state
