"""Checks that all that a run starts fits its machine, by the plans that the run would follow."""

from collections.abc import Iterator

from raypipe.config import Cluster
from raypipe.doctor.findings import Finding
from raypipe.doctor.workload import Training, streams_of, trainings_of
from raypipe.pipelines.context import Context, plan_pools
from raypipe.streams.machines import Machine
from raypipe.streams.resources import DoesNotFit
from raypipe.streams.trainings import TrainingPlan, plan_training


def check_fit(context: Context) -> Iterator[Finding]:
    """Each stream and each training finds its resources on the machine, and no GPU stays idle."""
    config, machine = context.config, context.machine
    fitting: list[str] = []
    reasons: dict[str, list[str]] = {}
    idle: dict[str, int] = {}

    def note(name: str, error: DoesNotFit) -> None:
        reasons.setdefault(str(error), []).append(name)

    for plan in streams_of(context):
        try:
            _, resources = plan_pools(plan, machine, config)
        except DoesNotFit as error:
            note(plan.name, error)
            continue
        fitting.append(plan.name)
        if any(stage.kind == "device" for stage in plan.steps):  # others have nothing to do on a GPU
            idle[plan.name] = resources.idle_gpus
    for training in trainings_of(config):
        name = f"training of the {training.task}"
        try:
            planned = plan_of(training, machine, config.cluster)
        except DoesNotFit as error:
            note(name, error)
            continue
        fitting.append(name)
        idle[name] = planned.idle_gpus
    if fitting and not reasons:
        yield Finding(check="resources", status="ok", found=f"{', '.join(fitting)}: each fits {machine}")
    for reason, names in reasons.items():
        found, _, way_out = reason.rpartition("; ")
        yield Finding(
            check="resources",
            status="problem",
            found=f"{', '.join(names)}: {found}",
            needed="room for everything that the config starts",
            way_out=way_out,
        )
    if any(idle.values()):
        numbers = ", ".join(f"{name} {number}" for name, number in idle.items() if number)
        yield Finding(
            check="idle GPUs",
            status="warning",
            found=f"of {machine.gpus:g} GPUs stay idle: {numbers}",
            needed="work for each GPU, unless others are to have them",
            way_out="leave cluster.gpus_per_actor, cluster.network_actors, cluster.gpus_per_train_worker and "
            "cluster.train_workers null, or give trainings a batch_size that more workers divide; `raypipe describe` "
            "prints the plan",
        )


def plan_of(training: Training, machine: Machine, cluster: Cluster) -> TrainingPlan:
    """The plan of a training on a machine.

    Raises:
        DoesNotFit: if the machine is too small, with the way out.
    """
    return plan_training(training.task, training.batch_size, machine, cluster, validates=training.validates)
