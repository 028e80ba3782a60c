"""Prints what a run would start on a machine: resources, stages and columns of each stream, and each training."""

from collections.abc import Sequence

from raypipe import schema
from raypipe.cluster.machines import Machine
from raypipe.config import RunConfig
from raypipe.data.manifest import Manifest
from raypipe.doctor.fit import plan_of
from raypipe.doctor.workload import streams_of, trainings_of
from raypipe.pipelines.context import Context, plan_pools
from raypipe.pipelines.seed_provider import SeedProvider
from raypipe.streams.plan import describe


def describe_run(
    config: RunConfig, classes: Sequence[str], machine: Machine, *, provider: SeedProvider | None = None
) -> str:
    """Describes all streams and trainings of a run on a machine, which needn't be there.

    A stream's table of resources is followed by a line for each stage: what goes in, and what comes out.

    Args:
        config: of the run; its manifest isn't read, and the checkpoints that it names needn't be there.
        classes: class names in class-id order, without background.
        machine: the nodes.
        provider: as of `Context`.

    Raises:
        DoesNotFit: if something doesn't fit the machine, with the way out.
    """
    context = Context(config, Manifest(schema.MANIFEST.empty_table(), tuple(classes)), provider=provider)
    texts = []
    for plan in streams_of(context):
        pools, resources = plan_pools(plan, machine, config)
        texts.append("\n".join([str(resources), *(f"  {line}" for line in describe(plan, pools))]))
    texts += [f"training of the {plan_of(training, machine, config.cluster)}" for training in trainings_of(context)]
    return "\n\n".join(texts)
