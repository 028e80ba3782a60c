"""The state of a training, which is saved between steps and survives an interruption."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raypipe.config import Training
from raypipe.networks import Network
from raypipe.training.optimizer import build_optimizer, parameter_groups, poly_factor
from raypipe.training.order import Position

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

    def is_finite(self) -> bool:
        """False where a weight, or a number that the optimiser keeps of one, is infinite or no number."""
        of_optimizer = [value for kept in self._optimizer.state.values() for value in kept.values()]
        tensors = [value for value in (*self.network.state_dict().values(), *of_optimizer) if torch.is_tensor(value)]
        return all(bool(value.isfinite().all()) for value in tensors)

    def report(self, position: Position, totals: dict[str, Any] | None, *, rank: int) -> None:
        """Saves the state: every worker calls this, worker 0 writes. The upload goes on while the training does.

        Args:
            position: where a training that is restored goes on.
            totals: what the epoch's steps so far add up to; None between epochs.
            rank: this worker's.
        """
        import ray.train  # the step of a training needs no Ray

        checkpoint = None
        if rank == 0:
            folder = tempfile.mkdtemp(prefix="raypipe-state-")  # Ray Train removes it after the upload
            torch.save(self._parts(position, totals), Path(folder) / STATE_FILE)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(
            position._asdict(), checkpoint=checkpoint, checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC
        )

    def restore(self) -> tuple[Position, dict[str, Any] | None]:
        """Loads the last state of this run, if there is one; returns what `report` was told."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return Position(0, 0), None
        with checkpoint.as_directory() as folder:
            return self.load(read_state(folder))

    def load(self, state: dict[str, Any]) -> tuple[Position, dict[str, Any] | None]:
        """Loads what `read_state` has read; returns where the training goes on, and the epoch's totals so far."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = state["history"]
        if any("mean_iou" in metrics for metrics in self.history):
            self._best = state["weights"]
        return Position(*state["position"]), state["totals"]

    def _parts(self, position: Position, totals: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "history": self.history,
            "weights": self.weights_to_use,
            "position": tuple(position),
            "totals": totals,
        }


def read_state(folder: str) -> dict[str, Any]:
    """Reads what `report` has saved: tensors and metrics, never code. `weights` holds the `weights_to_use`."""
    state: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    return state
