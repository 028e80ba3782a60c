"""Sweep: every setting of the walk on a sample of images in one pass, and the choice of one, without truth if need be.

The whole grid is scored inside the actors that hold the AffinityNet, so the cluster sees one stream, which resumes as
the masks' does. Where there are true masks, the best settings are scored again at full resolution.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.config import RunConfig, to_yaml
from raypipe.data.rows import Rows
from raypipe.ops.choice import Choice, choose_by_objective, choose_with_truth
from raypipe.ops.metrics import mean_iou_of_counts
from raypipe.ops.separation import COLOUR_WEIGHT
from raypipe.outputs.load import placed
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import taking_up, with_seeds
from raypipe.pipelines.steps import compute_cams, decode_images, fetch_images, given_loads, pixels_per_pass
from raypipe.reports.plots import setting_charts
from raypipe.schema import SETTINGS, columns
from raypipe.stages.score_settings import SCORES, ScoreSettings, Setting
from raypipe.streams.collect import draw, draw_rows, outputs_of, rows_digest
from raypipe.streams.plan import Plan

CHOICE_FILE = "choice.json"

STRIDE: Literal[4] = 4
"""Pixels per counted pixel of the first scoring, in both directions."""

NUM_FINALISTS = 10
"""The best settings without truth: `sweep.num_labelled` true masks choose among them, and where there are true masks
they are scored again at full resolution."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found."""

    folder: str
    table: pd.DataFrame
    """One row a setting, the best first."""
    choice: Choice
    chosen: Setting
    num_images: int
    num_labelled: int
    best_config: str
    """URI of the config with the chosen setting."""


class SettingScores:
    """Scores of settings, image by image, as `ScoreSettings` wrote them."""

    def __init__(self, rows: pa.Table, settings: Sequence[Setting], *, num_classes: int) -> None:
        self.settings = list(settings)
        self.num_classes = num_classes
        self.rows = rows.to_pylist()
        walked = [row for row in self.rows if row["class_ids"]]
        self.feature, self.colour = (
            np.array([row[name] for row in walked], np.float64).reshape(len(walked), len(settings))
            for name in ("feature_separations", "colour_separations")
        )

    def objective(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The objective of each setting; images that have labels weighted by `weights`."""
        feature, colour = (np.maximum(weights @ parted / weights.sum(), 0) for parted in (self.feature, self.colour))
        objective: NDArray[np.float64] = feature * colour**COLOUR_WEIGHT
        return objective

    def with_truth(self) -> list[int]:
        """Indices of the rows with truth."""
        return [index for index, row in enumerate(self.rows) if row["hits"] is not None]

    def mean_iou(self, indices: Sequence[int], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Mean IoU of each setting on rows with truth."""
        hits = np.zeros((len(self.settings), self.num_classes))
        predicted, truth = np.zeros_like(hits), np.zeros(self.num_classes)
        for index, weight in zip(indices, np.ones(len(indices)) if weights is None else weights, strict=True):
            row = self.rows[index]
            labels = [0, *row["class_ids"]]
            hits[:, labels] += weight * _counts(row["hits"], len(labels))
            predicted[:, labels] += weight * _counts(row["predicted"], len(labels))
            truth[row["truth_ids"]] += weight * np.array(row["truth_pixels"], np.float64)
        return mean_iou_of_counts(hits, predicted, truth)


def _counts(data: bytes, num_labels: int) -> NDArray[np.float64]:
    return np.frombuffer(data, "<i4").reshape(-1, num_labels).astype(np.float64)


def known_settings(context: Context) -> dict[str, Setting]:
    """The config's own setting and the paper's (AffinityNet §3.4)."""
    walk = context.config.walk
    return {"config": Setting(walk.alpha, walk.beta, walk.num_steps), "paper": Setting(16.0, 8.0, 256)}


def grid(context: Context) -> list[Setting]:
    """All settings of a sweep: every combination, the config's own, the paper's."""
    sweep = context.config.sweep
    settings = [Setting(*values) for values in product(sweep.alphas, sweep.betas, sweep.steps)]
    return list(dict.fromkeys([*settings, *known_settings(context).values()]))


def scored_rows(context: Context) -> Rows:
    """Rows of the manifest that a sweep scores."""
    config = context.config
    return draw_rows(context.rows(config.splits.masks), config.sweep.num_images, seed=config.seed)


def run_sweep(context: Context, *, maps: Artifact, affinity: Artifact | None) -> SweepResult:
    """Scores the grid and chooses; arguments as of `masks_plan`.

    Raises:
        ValueError: if no image has a label, or images are worked on in tiles.
    """
    config = context.config
    if config.images.tile is not None:
        raise ValueError(
            "a sweep scores whole images, images.tile has none: sweep images of a tile's size, or cut some"
        )
    rows = scored_rows(context)
    settings = grid(context)
    plan = sweep_plan(context, settings, maps=maps, affinity=affinity, stride=STRIDE)
    scored, scores = score_settings(context, plan, rows, settings, maps=maps)
    choice, num_labelled = choose(scores, config)
    table = _table(scores, choice)
    known = known_settings(context)
    notes = [", ".join(name for name in known if known[name] == setting) for setting in settings]
    table.insert(0, "note", notes)
    table = table.sort_values(["score", "objective"], ascending=False, kind="stable")
    if scores.with_truth():
        finalists = list(dict.fromkeys([*table.index[:NUM_FINALISTS], *table.index[table["note"] != ""]]))
        best = [settings[index] for index in finalists]
        exact = sweep_plan(context, best, maps=maps, affinity=affinity, stride=1)
        _, full = score_settings(context, exact, rows, best, maps=maps, scored=scored)
        table.loc[finalists, "full_mean_iou"] = full.mean_iou(full.with_truth())
    chosen = settings[choice.index]
    folder = sweep_folder(context, plan, rows)
    values = config.model_dump()
    values["walk"] |= chosen._asdict()
    best_config = storage.join(folder, "best.yaml")
    storage.write_bytes_atomic(best_config, to_yaml(type(config).model_validate(values)).encode())
    _write_table(folder, table)
    for name, svg in setting_charts(table, chosen=chosen._asdict()).items():
        storage.write_bytes_atomic(storage.join(folder, f"{name}.svg"), svg.encode())
    found = {"chosen": chosen._asdict(), "num_images": len(scores.rows), "num_labelled": num_labelled}
    found |= {"score": choice.scores[choice.index], "low": choice.low, "high": choice.high, "regret": choice.regret}
    found["networks"] = {"maps": maps.digest, "affinity": affinity.digest if affinity else None}
    storage.write_bytes_atomic(storage.join(folder, CHOICE_FILE), json.dumps(found, indent=1).encode())
    return SweepResult(
        folder=folder,
        table=table,
        choice=choice,
        chosen=chosen,
        num_images=len(scores.rows),
        num_labelled=num_labelled,
        best_config=best_config,
    )


def sweep_folder(context: Context, plan: Plan, rows: Rows) -> str:
    """Where a sweep's results lie: they are of a set of rows, which the folder of its scores is not."""
    depends_on = [
        plan.digest,
        rows_digest(placed(rows, plan.takes), plan.row_columns()),
        context.config.sweep,
        context.config.seed,
    ]
    return storage.join(context.config.out, "sweep", digest(depends_on))


def choose(scores: SettingScores, config: RunConfig) -> tuple[Choice, int]:
    """The choice, and the number of true masks that it used.

    Raises:
        ValueError: if no image has a label, or fewer have a true mask than are asked for.
    """
    number, seed = config.sweep.num_labelled, config.seed
    if not number:
        return choose_by_objective(scores.objective, num_images=len(scores.feature), seed=seed), 0
    known = scores.with_truth()
    if len(known) < number:
        raise ValueError(
            f"sweep.num_labelled is {number}, but {len(known)} of the {len(scores.rows)} scored images have a true "
            "mask; lower it, or give more mask_uri"
        )
    labelled = [known[i] for i in draw([scores.rows[i]["image_id"] for i in known], number, seed=seed)]
    objective = scores.objective(np.ones(len(scores.feature)))
    mean_iou = partial(scores.mean_iou, labelled)
    choice = choose_with_truth(objective, mean_iou, num_images=number, num_candidates=NUM_FINALISTS, seed=seed)
    return choice, number


def sweep_plan(
    context: Context,
    settings: Sequence[Setting],
    *,
    maps: Artifact,
    affinity: Artifact | None,
    stride: Literal[1, 4],
) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → ScoreSettings.

    Args:
        context: config and manifest.
        settings: to score.
        maps: as of `masks_plan`.
        affinity: as of `masks_plan`.
        stride: pixels per counted pixel, in both directions.
    """
    config = context.config
    score = ScoreSettings(
        settings=tuple(settings),
        stride=stride,
        num_classes=len(context.classes) + 1,
        affinity=affinity,
        radius=config.affinity.radius,
        count_padding=config.walk.count_padding,
        cam_stride=config.cams.out_stride,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )
    return Plan(
        name="settings",
        takes=given_loads(context, maps),
        stages=(fetch_images(context), decode_images(context), compute_cams(context, maps), score),
        schema=SETTINGS,
        classes=context.classes,
    )


def score_settings(
    context: Context,
    plan: Plan,
    rows: Rows,
    settings: Sequence[Setting],
    *,
    maps: Artifact,
    scored: Artifact | None = None,
) -> tuple[Artifact, SettingScores]:
    """Scores settings on rows of the manifest, unless that is done already; the folder, and the scores.

    Args:
        context: config and manifest.
        plan: of the settings.
        rows: to score on.
        settings: the plan's.
        maps: as of `masks_plan`.
        scored: folder of an earlier scoring of the same rows, whose maps are taken up; None takes those of seeds.
    """
    if scored is None:
        plan = with_seeds(context, plan, maps=maps)
    else:
        plan = taking_up(plan, scored, compute_cams(context, maps))
    folder, _ = context.run(plan, rows)
    table = outputs_of(folder, rows, columns(SETTINGS, "image_id", "class_ids", *SCORES))
    return folder, SettingScores(table, settings, num_classes=len(context.classes) + 1)


def _table(scores: SettingScores, choice: Choice) -> pd.DataFrame:
    known = scores.with_truth()
    ones = np.ones(len(scores.feature))
    return pd.DataFrame(
        {
            **{name: [getattr(setting, name) for setting in scores.settings] for name in Setting._fields},
            "score": choice.scores,
            "objective": scores.objective(ones),
            "feature_separation": scores.feature.mean(axis=0),
            "colour_separation": scores.colour.mean(axis=0),
            "mean_iou": scores.mean_iou(known) if known else np.nan,
            "full_mean_iou": np.nan,
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
        mean_iou=100 * shown["mean_iou"],
        full_mean_iou=100 * shown["full_mean_iou"],
    )
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
    for name, option in (("alpha", "alphas"), ("beta", "betas"), ("num_steps", "steps")):
        tried, value = table[name], getattr(result.chosen, name)
        if tried.nunique() > 1 and value in (tried.max(), tried.min() or tried.max()):
            end = "largest" if value == tried.max() else "smallest"
            lines.append(f"{name} {value:g} is the {end} that was tried: sweep.{option} could go further")
    return "\n".join(lines)
