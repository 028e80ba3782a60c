"""What a page says first: which masks these are."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from raypipe.config import RunConfig
from raypipe.pipelines.context import Context
from raypipe.reports.page import stage_name
from raypipe.results import Decision
from raypipe.uri import name_of, parent

DATE = "%Y-%m-%d %H:%M UTC"


def dataset_name(manifest: str) -> str:
    """The manifest's name without its ending; where it is called just "manifest", that of its folder."""
    name = name_of(manifest).removesuffix(".parquet")
    return name if name != "manifest" else name_of(parent(manifest)) or name


def headline(context: Context, what: str, *, decisions: Sequence[Decision]) -> tuple[str, dict[str, str]]:
    """The title of a run's page on `what`, and what stands below it: dataset, folder, settings, date.

    Args:
        context: config and manifest.
        what: the page shows.
        decisions: of the gates.
    """
    config, now = context.config, datetime.now(UTC)
    title = f"{what} of {dataset_name(config.manifest)} in {name_of(config.out) or config.out}, {now:%Y-%m-%d}"
    number = f"{len(context.manifest):,} images, {len(context.classes)} classes"
    return title, {
        "dataset": f"{config.manifest} ({number})",
        "folder": config.out,
        "settings": "; ".join(settings_in_words(config, decisions)),
        "written": now.strftime(DATE),
    }


def settings_in_words(config: RunConfig, decisions: Sequence[Decision]) -> Iterator[str]:
    """The settings that one asks for first, and what gates rejected of them; the page has all of them at its end."""
    rejected = {decision.refinement for decision in decisions if not decision.kept}
    yield config.network.backbone
    if config.checkpoints.seeds is not None:
        yield "maps that were given"
    else:
        yield f"maps at scales {', '.join(f'{scale:g}' for scale in config.cams.scales)}"
        if config.classifier.saliency != "none":
            yield f"saliency by {config.classifier.saliency.upper()}"
    walk = config.walk
    along = {"learned": "learned affinities", "frozen": "the backbone's features", "rgb": "plain colours"}[
        walk.affinity
    ]
    taken = f"walk of {walk.num_steps} steps along {along}, alpha {walk.alpha:g}, beta {walk.beta:g}"
    yield f"{taken} (rejected by the gate)" if "walk" in rejected else taken
    method = config.refinement.method
    if method == "none":
        yield "no refinement"
    else:
        yield (
            f"{stage_name(method)} (rejected by the gate)" if method in rejected else f"refined by {stage_name(method)}"
        )
    if config.segmenter.enabled:
        yield "segmentation network"
    yield f"seed {config.seed}"
