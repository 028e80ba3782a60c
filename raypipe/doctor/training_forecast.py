"""Hours of a run's trainings, before any run, from timed steps of networks with random weights on made-up crops.

    epochs · ⌈images / batch⌉ · t

t: a step of one worker with its part of the batch, in a process with a worker's resources. Loading crops runs beside
the steps and isn't in it, nor are exchanges between workers and validation.
"""

import time
from dataclasses import dataclass
from typing import Any

import ray

from raypipe.cluster.trainings import TrainingPlan
from raypipe.config import Training
from raypipe.data.checkpoints import Task
from raypipe.doctor.fingerprint import count_labelled
from raypipe.doctor.fit import plan_of
from raypipe.doctor.forecast import SECONDS, SampleFailed
from raypipe.doctor.workload import checkpoint, trainings_of
from raypipe.pipelines.affinity import affinity_task
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import Context
from raypipe.pipelines.segmenter import segmenter_task
from raypipe.training.order import num_steps_per_epoch
from raypipe.training.tasks import TrainingTask

SHORT_SECONDS = 5.0
"""Of a first step, after which others are timed: it also sets up what they find."""

_MORE_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class TrainingForecast:
    """A training on the whole manifest."""

    name: str
    num_images: int
    """That it learns from, at most."""
    epochs: int
    rounds: int
    """How often it is trained: once, and for each round of self-training."""
    batch_size: int
    num_steps: int
    """Of all epochs and rounds."""
    workers: int
    step_seconds: float
    hours: float


def forecast_trainings(context: Context) -> list[TrainingForecast]:
    """Times steps of the networks that a run trains, one after the other.

    Raises:
        SampleFailed: if a step fails, or gets no resources.
        DoesNotFit: if the machine is too small for a training.
    """
    config = context.config
    trainings = list(trainings_of(context))
    if not trainings:
        return []
    labelled = count_labelled(context.rows(config.splits.train), context.classes).num_rows
    found = []
    for training in trainings:
        plan = plan_of(training, context.machine, config.cluster)
        options = config.training(training.task)
        seconds = _time(_task(context, training.task), options, plan)
        section = options.section
        num_images = labelled if section.max_images is None else min(labelled, section.max_images)
        rounds = 1 + (config.segmenter.rounds if training.task == "segmenter" else 0)
        num_steps = rounds * section.epochs * num_steps_per_epoch(num_images, section.batch_size)
        found.append(
            TrainingForecast(
                name=training.name,
                num_images=num_images,
                epochs=section.epochs,
                rounds=rounds,
                batch_size=section.batch_size,
                num_steps=num_steps,
                workers=plan.workers,
                step_seconds=seconds,
                hours=num_steps * seconds / 3600,
            )
        )
    return found


def _task(context: Context, name: Task) -> TrainingTask:
    classifier = checkpoint(context.config, "classifier")  # its weights aren't loaded
    if name == "affinity":
        return affinity_task(context, classifier=classifier)
    return classifier_task(context) if name == "classifier" else segmenter_task(context, classifier=classifier)


def _time(task: TrainingTask, training: Training, plan: TrainingPlan) -> float:
    # A fresh process, as of a sample's pools: its threads are those of a real worker.
    remote: Any = ray.remote(num_cpus=plan.cpus, num_gpus=plan.gpus, max_calls=1, max_retries=0)
    size = training.section.batch_size // plan.workers
    ref = remote(time_step).remote(task, training, batch_size=size, threads=plan.threads, on_gpu=plan.gpus > 0)
    try:
        return float(ray.get(ref, timeout=SECONDS))
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(ref, force=True)
        raise SampleFailed(
            f"a step of the training of the {task.name} wasn't done after {SECONDS} s: the cluster is busy, or "
            "batch_size and crop_size are too large for it"
        ) from error
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]
        raise SampleFailed(f"a step of the training of the {task.name} failed: {said}") from error


def time_step(task: TrainingTask, training: Training, *, batch_size: int, threads: int, on_gpu: bool) -> float:
    """Seconds that a step takes in this process.

    Args:
        task: whose network gets random weights.
        training: its options.
        batch_size: images of one worker.
        threads: of torch.
        on_gpu: on the GPU, not on the CPU.
    """
    import torch  # takes seconds

    from raypipe.training.batch import Batch
    from raypipe.training.state import TrainingState
    from raypipe.training.step import distributed_loss, loss_terms

    torch.set_num_threads(threads)
    device, section = torch.device("cuda" if on_gpu else "cpu"), training.section
    network = task.build().to(device=device)
    network.to(memory_format=torch.channels_last).train()
    task = task.at_epoch(section.epochs - 1, section.epochs)
    state = TrainingState(network, training, num_steps=1 + _MORE_STEPS)
    size = section.crop_size
    batch = Batch(
        torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8),
        {
            name: torch.randint(0, 2, (batch_size, *shape), dtype=torch.uint8)
            for name, shape in task.target_shapes(size).items()
        },
        torch.ones(batch_size, dtype=torch.bool),
    )

    def step() -> None:
        terms = loss_terms(
            task, network, batch.to(device), preprocessing=network.preprocessing, precision=training.precision
        )
        state.step(distributed_loss(task, *terms, world_size=1))
        if on_gpu:
            torch.cuda.synchronize()

    def timed(number: int) -> float:
        started = time.perf_counter()
        for _ in range(number):
            step()
        return (time.perf_counter() - started) / number

    first = timed(1)
    return first if first > SHORT_SECONDS else timed(_MORE_STEPS)
