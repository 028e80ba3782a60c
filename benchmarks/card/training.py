"""Training steps: what the loop on Ray does with a batch, without Ray."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from card.report import Report
from card.setting import CLASSES, CONFIG, Setting
from raypipe.config.base import Precision
from raypipe.config.training import NetworkConfig
from raypipe.training.batch import Batch
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.state import TrainingState
from raypipe.training.step import distributed_loss, loss_terms
from raypipe.training.tasks import AffinityTask, ClassifierTask, SegmenterTask, TrainingTask

TASKS = ("classifier", "affinity", "segmenter", "EPS", "EPS++")


def make_task(name: str, backbone: str) -> TrainingTask:
    """A task as the default config has it."""
    start: dict[str, Any] = {"backbone": backbone, "weights": None, "preprocessing": None}
    if name == "affinity":
        return AffinityTask(**start, radius=CONFIG.affinity.radius)
    if name == "segmenter":
        return SegmenterTask(**start, num_classes=len(CLASSES), head=CONFIG.segmenter.head)
    start |= {"num_classes": len(CLASSES), "output_stride": CONFIG.classifier.output_stride}
    if name == "classifier":
        return ClassifierTask(**start)
    loss = CONFIG.classifier.saliency_loss
    method = "eps" if name == "EPS" else "eps++"
    return SaliencyTask(**start, method=method, eps_share=0, ird_tau=loss.ird_tau, stride=loss.stride)


@dataclass
class Trainer:
    """A training at its first step, with random weights."""

    name: str
    backbone: str
    device: torch.device
    precision: Precision = "auto"
    crop_size: int = 448
    task: TrainingTask = field(init=False)
    network: Any = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.task = make_task(self.name, self.backbone)
        self.network = self.task.build().to(device=self.device).train()
        self.network.to(memory_format=torch.channels_last)
        config = CONFIG.model_copy(update={"network": NetworkConfig(backbone=self.backbone, weights=None)})  # type: ignore[arg-type]
        self.state = TrainingState(self.network, config.training(self.task.name), num_steps=1000)

    def batch(self, size: int) -> Batch:
        """Random crops and targets, on the CPU."""
        rng = np.random.default_rng(0)
        crops = rng.integers(0, 256, (size, 3, self.crop_size, self.crop_size), dtype=np.uint8)
        highs = {"labels": 2, "is_true": 2, "saliency": 256, "trimap": 3, "mask": 3}
        targets = {
            name: torch.from_numpy(rng.integers(0, highs[name], (size, *shape), dtype=np.uint8))
            for name, shape in self.task.target_shapes(self.crop_size).items()
        }
        return Batch(torch.from_numpy(crops), targets, torch.ones(size, dtype=torch.bool))

    def step(self, batch: Batch) -> Tensor:
        """Takes one step; its loss."""
        preprocessing = self.network.preprocessing
        batch = batch.to(self.device)
        terms = loss_terms(self.task, self.network, batch, preprocessing=preprocessing, precision=self.precision)
        loss = distributed_loss(self.task, *terms, world_size=1)
        self.state.step(loss)
        return loss

    def steps(self, batch: Batch, count: int) -> None:
        """Takes several steps."""
        for _ in range(count):
            self.step(batch)


def measure_training(report: Report, setting: Setting, name: str) -> None:
    """Steps a second of a training with the default batch and crop, and its peak of memory."""
    sizes = setting.sizes
    section = CONFIG.training(make_task(name, sizes.main).name).section
    crop_size = section.crop_size if setting.has_card else 64
    batch_size = section.batch_size if setting.has_card else sizes.batch
    if setting.has_card:
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(name, sizes.main, setting.device, crop_size=crop_size)
    batch = trainer.batch(batch_size)
    (timing,) = setting.time(lambda: trainer.steps(batch, sizes.steps), runs=min(3, sizes.runs))
    what = f"{name}, {sizes.main}, {batch_size} crops of {crop_size}x{crop_size}"
    report.measure(f"{what}: steps a second", f"{sizes.steps / timing.median:.3g} ({timing} for {sizes.steps})")
    if setting.has_card:
        report.measure(f"{what}: peak memory", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
