"""Seeds: class activation maps of every image, trimaps of those that the AffinityNet is trained on."""

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.formats.cams.read import read_cams_digest
from raypipe.outputs.records import RECORD_FILE
from raypipe.pipelines.context import Context
from raypipe.pipelines.steps import compute_cams, decode_images, fetch_images, make_trimaps
from raypipe.results import StreamSummary
from raypipe.schema import SEEDS
from raypipe.streams.plan import Plan


def seeds_plan(context: Context, *, maps: Artifact) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → MakeTrimaps, or MakeTrimapsOnDevice with `refinement.device=gpu`.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or the folder of given maps.
    """
    return Plan(
        name="seeds",
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


def given_cams(context: Context) -> Artifact | None:
    """The folder of maps that the config names, None where it names none.

    Raises:
        ValueError: if there are none.
    """
    folder = context.config.checkpoints.cams
    return None if folder is None else Artifact(folder, read_cams_digest(folder))
