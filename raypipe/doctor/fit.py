"""Checks that all that a run starts fits its machine, by the plans that the run would follow."""

import glob
from collections.abc import Iterator

from raypipe import storage
from raypipe.cluster.findings import Finding, Status, problem
from raypipe.cluster.machines import Machine
from raypipe.cluster.resources import DoesNotFit
from raypipe.cluster.trainings import TrainingPlan, plan_training
from raypipe.config import Cluster
from raypipe.doctor.workload import Step, Training, parts_until, streams_of, trainings_of
from raypipe.outputs.records import SUMMARY_FILE
from raypipe.pipelines.context import Context, plan_pools
from raypipe.streams.plan import Plan


def check_step(context: Context, until: Step) -> Iterator[Finding]:
    """What a step, and those that it needs, may start finds its resources; what was made before may need none."""
    for part in parts_until(context, until):
        try:
            _idle_gpus(part, context)
        except DoesNotFit as error:
            found, _, way_out = str(error).rpartition("; ")
            status: Status = "warning" if _was_made(part, context.config.out) else "problem"
            yield Finding(
                "resources", status, f"{part.name}: {found}", needed="room for what is started", way_out=way_out
            )


def _was_made(part: Plan | Training, out: str) -> bool:
    """Whether `out` has such a network, or such rows, though perhaps of another config."""
    from raypipe.data.checkpoints import CHECKPOINT, METADATA_FILE  # torch takes seconds to import

    file = f"*/{CHECKPOINT}/{METADATA_FILE}" if isinstance(part, Training) else f"*/{SUMMARY_FILE}"
    folder = part.task if isinstance(part, Training) else part.name
    return bool(storage.glob(f"{glob.escape(storage.join(out, folder))}/{file}"))


def check_fit(context: Context) -> Iterator[Finding]:
    """Each stream and each training of a run finds its resources on the machine, and no GPU stays idle."""
    idle: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    parts: list[Plan | Training] = [*streams_of(context), *trainings_of(context)]
    for part in parts:
        try:
            idle[part.name] = _idle_gpus(part, context)
        except DoesNotFit as error:
            reasons.setdefault(str(error), []).append(part.name)
    if idle and not reasons:
        yield Finding("resources", "ok", f"{', '.join(idle)}: each fits {context.machine}")
    for reason, names in reasons.items():
        found, _, way_out = reason.rpartition("; ")
        needed = "room for everything that the config starts"
        yield problem("resources", f"{', '.join(names)}: {found}", needed=needed, way_out=way_out)
    if any(idle.values()):
        numbers = ", ".join(f"{name} {number}" for name, number in idle.items() if number)
        yield Finding(
            "idle GPUs",
            "warning",
            f"of {context.machine.gpus:g} GPUs stay idle: {numbers}",
            needed="work for each GPU, unless others are to have them",
            way_out="leave cluster.gpus_per_actor, cluster.network_actors, cluster.gpus_per_train_worker and "
            "cluster.train_workers null, or give trainings a batch_size that more workers divide; `raypipe describe` "
            "prints the plan",
        )


def _idle_gpus(part: Plan | Training, context: Context) -> int:
    """GPUs that a stream or a training leaves idle, although it has work for them."""
    if isinstance(part, Training):
        return plan_of(part, context.machine, context.config.cluster).idle_gpus
    _, resources = plan_pools(part, context.machine, context.config)
    return resources.idle_gpus if any(stage.kind == "device" for stage in part.steps) else 0


def plan_of(training: Training, machine: Machine, cluster: Cluster) -> TrainingPlan:
    """The plan of a training on a machine.

    Raises:
        DoesNotFit: if the machine is too small, with the way out.
    """
    return plan_training(training.task, training.batch_size, machine, cluster, validates=training.validates)
