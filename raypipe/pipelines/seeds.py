"""Seeds: class activation maps of every image, trimaps of those that the AffinityNet is trained on."""

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.outputs.imported import find_imported
from raypipe.outputs.records import RECORD_FILE
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.steps import compute_cams, decode_images, fetch_images, given_loads, make_trimaps
from raypipe.results import StreamSummary
from raypipe.schema import SEEDS
from raypipe.streams.plan import Plan


def seeds_plan(context: Context, *, maps: Artifact) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → MakeTrimaps, or MakeTrimapsOnDevice with `refinement.device=gpu`.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or what given seeds are known by.
    """
    return Plan(
        name="seeds",
        takes=given_loads(context, maps),
        stages=(
            fetch_images(context),
            decode_images(context),
            compute_cams(context, maps),
            make_trimaps(context),
        ),
        schema=SEEDS,
        classes=context.classes,
    )


def run_seeds(context: Context, *, maps: Artifact) -> tuple[Artifact, StreamSummary]:
    """Computes the seeds that aren't there yet; arguments as of `seeds_plan`."""
    return context.run(seeds_plan(context, maps=maps), context.seed_rows())


def find_seeds(context: Context, *, maps: Artifact) -> Artifact | None:
    """The folder of seeds that these maps have, finished or not; None where none was begun."""
    seeds = seeds_plan(context, maps=maps).artifact(context.config.out)
    return seeds if storage.exists(storage.join(seeds.uri, RECORD_FILE)) else None


def check_given_seeds(context: Context) -> None:
    """Makes sure that given seeds can be used, before anything is started for them.

    Raises:
        ValueError: an import wasn't finished, or a provider reads what isn't there.
    """
    maps = given_seeds(context)
    if maps is not None:
        seeds_plan(context, maps=maps).check(MANIFEST_COLUMNS)


def given_seeds(context: Context) -> Artifact | None:
    """What the seeds are known by that the config or the command line names; None where a classifier makes them.

    Raises:
        ValueError: if there are none.
    """
    if context.provider is not None:
        return context.provider.artifact
    folder = context.config.checkpoints.seeds
    return None if folder is None else find_imported(folder)
