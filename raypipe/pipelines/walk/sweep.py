"""Sweep: many settings of the walk on a sample of images, and the choice of one, without truth if need be.

A grid is scored inside the actors that hold the AffinityNet, so the cluster sees one stream, which resumes as the
masks' does; `sweep.search=optuna` looks beyond it (`raypipe.pipelines.walk.search`). Settings are compared with one
walk for all images, the ten best of them once more by the masks that a run would make, in which each image takes a walk
of its own: the objective or true masks choose one of the ten. To compare all by such masks would cost more and choose
worse: the further a setting reaches, the more walks an image has to choose among, of which it takes the one with the
highest objective (benchmarks/sweep.md).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.config import to_yaml
from raypipe.data.rows import Rows
from raypipe.ops.choice import Choice
from raypipe.outputs.load import placed
from raypipe.pipelines.context import Context
from raypipe.pipelines.steps import walk_choice
from raypipe.pipelines.walk.separations import Separations
from raypipe.pipelines.walk.setting_scores import (
    NUM_FINALISTS,
    check_labelled,
    choose,
    known_settings,
    score_settings,
    sweep_plan,
)
from raypipe.reports.plots import setting_charts
from raypipe.stages.walk_scores import Setting
from raypipe.streams.collect import collect, draw_rows, rows_digest
from raypipe.streams.plan import Plan

if TYPE_CHECKING:
    from raypipe.pipelines.walk.search import Search

CHOICE_FILE = "choice.json"

STRIDE: Literal[4] = 4
"""Pixels per counted pixel of the first scoring, in both directions."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found."""

    folder: str
    table: pd.DataFrame
    """One row a setting, the best first. With true masks, `one_walk_mean_iou` is of one walk for all images, on a
    sixteenth of the pixels, and `mask_mean_iou`, which finalists alone have, of the masks that a run would make."""
    choice: Choice
    chosen: Setting
    num_images: int
    num_labelled: int
    best_config: str
    """URI of the config with the chosen setting."""
    search: "Search | None" = None
    """How it was searched, where it wasn't a grid."""


def grid(context: Context) -> list[Setting]:
    """All settings of a sweep: every combination, the config's own, the paper's."""
    sweep = context.config.sweep
    settings = [Setting(*values, context.config.radius) for values in product(sweep.alphas, sweep.betas, sweep.steps)]
    return list(dict.fromkeys([*settings, *known_settings(context).values()]))


def scored_rows(context: Context) -> Rows:
    """Rows of the manifest that a sweep scores."""
    config = context.config
    return draw_rows(context.rows(config.splits.masks), config.sweep.num_images, seed=config.seed)


def run_sweep(context: Context, *, maps: Artifact, affinity: Artifact | None) -> SweepResult:
    """Scores settings and chooses; arguments as of `masks_plan`.

    Raises:
        ValueError: if no image has a label, images are worked on in tiles, fewer have a true mask than are asked for,
            or Optuna is missing.
    """
    config = context.config
    if config.images.tile is not None:
        raise ValueError(
            "a sweep scores whole images, images.tile has none: sweep images of a tile's size, or cut some"
        )
    rows = scored_rows(context)
    if config.sweep.num_labelled:  # before anything is computed
        truth = collect(rows.select(["mask_uri"]))["mask_uri"]
        check_labelled(config.sweep.num_labelled, num_known=len(truth) - truth.null_count, num_images=len(truth))
    candidates = (_of_grid if config.sweep.search == "grid" else _of_search)(
        context, rows, maps=maps, affinity=affinity
    )
    folder, settings = candidates.folder, candidates.separations.settings
    finalists = _finalists(context, candidates.separations)
    best = [settings[index] for index in finalists]
    plan = sweep_plan(context, best, maps=maps, affinity=affinity, stride=1, choice=walk_choice(config, affinity))
    _, full = score_settings(context, plan, rows, best, maps=maps, scored=candidates.scored)
    choice = _of_all(choose(full, config), finalists, len(settings))
    table = _table(candidates, choice)
    if full.with_truth():
        table.loc[finalists, "mask_mean_iou"] = full.mean_iou(full.with_truth())
    known = known_settings(context)
    notes = [", ".join(name for name in known if known[name] == setting) for setting in settings]
    table.insert(0, "note", notes)
    table = table.sort_values(["score", "objective"], ascending=False, kind="stable")
    chosen = settings[choice.index]
    values = config.model_dump()
    values["walk"] |= chosen._asdict()
    best_config = storage.join(folder, "best.yaml")
    storage.write_bytes_atomic(best_config, to_yaml(type(config).model_validate(values)).encode())
    _write_table(folder, table)
    for name, svg in setting_charts(table, chosen=chosen._asdict()).items():
        storage.write_bytes_atomic(storage.join(folder, f"{name}.svg"), svg.encode())
    found = {
        "chosen": chosen._asdict(),
        "num_images": len(full.rows),
        "num_labelled": config.sweep.num_labelled,
    }
    found |= {"score": choice.scores[choice.index], "low": choice.low, "high": choice.high, "regret": choice.regret}
    found["networks"] = {"maps": maps.digest, "affinity": affinity.digest if affinity else None}
    storage.write_bytes_atomic(storage.join(folder, CHOICE_FILE), json.dumps(found, indent=1).encode())
    return SweepResult(
        folder=folder,
        table=table,
        choice=choice,
        chosen=chosen,
        num_images=len(full.rows),
        num_labelled=config.sweep.num_labelled,
        best_config=best_config,
        search=candidates.search,
    )


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    """Settings that were scored with one walk for all images."""

    folder: str
    scored: Artifact
    """Folder of the stream that holds the maps."""
    separations: Separations
    mean_iou: NDArray[np.float64] | None = None
    search: "Search | None" = None


def _of_grid(context: Context, rows: Rows, *, maps: Artifact, affinity: Artifact | None) -> _Candidates:
    """Every setting of the grid in one stream."""
    settings = grid(context)
    plan = sweep_plan(context, settings, maps=maps, affinity=affinity, stride=STRIDE, choice="given")
    scored, scores = score_settings(context, plan, rows, settings, maps=maps)
    if not scores.separations.num_images:
        raise ValueError("expected at least one image with a label to choose a setting by, got none")
    known = scores.with_truth()
    return _Candidates(
        folder=sweep_folder(context, plan, rows, walk_choice(context.config, affinity)),
        scored=scored,
        separations=scores.separations,
        mean_iou=scores.mean_iou(known) if known else None,
    )


def _of_search(context: Context, rows: Rows, *, maps: Artifact, affinity: Artifact | None) -> _Candidates:
    """Those settings that Ray Tune's trials brought to the end."""
    from raypipe.pipelines.walk.search import cells_plan, check_installed, search_space, search_walk

    check_installed()
    plan = cells_plan(context, maps=maps, affinity=affinity)
    folder = sweep_folder(context, plan, rows, walk_choice(context.config, affinity), search_space(context))
    search = search_walk(context, rows, plan, maps=maps, folder=folder)
    return _Candidates(folder=folder, scored=search.scored, separations=search.separations, search=search)


def _finalists(context: Context, separations: Separations) -> list[int]:
    """Indices of the settings with the highest objective, the best first, and then of those that are known."""
    order = np.argsort(-separations.objective(), kind="stable").tolist()
    known = set(known_settings(context).values())
    return list(
        dict.fromkeys([*order[:NUM_FINALISTS], *(index for index in order if separations.settings[index] in known)])
    )


def sweep_folder(context: Context, plan: Plan, rows: Rows, *others: object) -> str:
    """Where a sweep's results lie: they are of a set of rows, which the folder of its scores is not."""
    depends_on = [
        plan.digest,
        rows_digest(placed(rows, plan.takes), plan.row_columns()),
        context.config.sweep,
        context.config.seed,
        *others,
    ]
    return storage.join(context.config.out, "sweep", digest(depends_on))


def _of_all(choice: Choice, indices: Sequence[int], number: int) -> Choice:
    """A choice among some settings as one among all of them, of which the others have no score."""
    scores = np.full(number, np.nan)
    scores[list(indices[: len(choice.scores)])] = choice.scores
    return replace(choice, index=indices[choice.index], scores=scores)


def _table(candidates: _Candidates, choice: Choice) -> pd.DataFrame:
    parted, mean_iou = candidates.separations, candidates.mean_iou
    return pd.DataFrame(
        {
            **{name: [getattr(setting, name) for setting in parted.settings] for name in Setting._fields},
            "score": choice.scores,
            "objective": parted.objective(),
            "feature_separation": parted.feature.mean(axis=0),
            "colour_separation": parted.colour.mean(axis=0),
            "one_walk_mean_iou": np.nan if mean_iou is None else mean_iou,
            "mask_mean_iou": np.nan,
        }
    )


def _write_table(folder: str, table: pd.DataFrame) -> None:
    storage.write_bytes_atomic(storage.join(folder, "table.parquet"), table.to_parquet(index=False))
    storage.write_bytes_atomic(storage.join(folder, "table.csv"), table.to_csv(index=False).encode())


def result_table(result: SweepResult, *, num_rows: int = 10) -> str:
    """The best settings, the config's and the paper's, and the choice, as text."""
    table = result.table
    shown = table[(np.arange(len(table)) < num_rows) | (table["note"] != "")].drop(columns=["note"])
    shown = shown.assign(
        note=table["note"],
        one_walk_mean_iou=100 * shown["one_walk_mean_iou"],
        mask_mean_iou=100 * shown["mask_mean_iou"],
    )
    shown = shown.dropna(axis="columns", how="all")  # without truth nothing is known of any IoU
    choice = result.choice
    by = (
        f"{result.num_labelled} true masks and the objective" if result.num_labelled else "the objective, without truth"
    )
    lines = [
        shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep=""),
        "",
        f"chosen by {by}, on {result.num_images} images: "
        f"{', '.join(f'{name} {value:g}' for name, value in result.chosen._asdict().items())}; score "
        f"{choice.scores[choice.index]:.4f}, 95 % interval {choice.low:.4f} to {choice.high:.4f}, expected loss "
        f"against the best {choice.regret:.4f}",
    ]
    if result.search is not None:
        done = result.search.trials["status"] == "done"
        lines.append(f"{len(done)} trials of beta and radius, {done.sum()} of them on all images: trials.csv")
    for name, option in (("alpha", "alphas"), ("beta", "betas"), ("num_steps", "steps")):
        tried, value = table[name], getattr(result.chosen, name)
        if result.search is None and tried.nunique() > 1 and value in (tried.max(), tried.min() or tried.max()):
            end = "largest" if value == tried.max() else "smallest"
            lines.append(f"{name} {value:g} is the {end} that was tried: sweep.{option} could go further")
    return "\n".join(lines)
