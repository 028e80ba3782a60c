"""Outer sweep: trains networks in every way that `sweep.training` names and compares them, on Ray Tune.

A trial is a config of its own: its networks, then the sweep of the walk with them. As many run at once as the cluster
holds, each on an equal part of it. What several trials need, such as the classifier of those that differ in the
AffinityNet alone, is made before they start.

The sweep's objective is measured in the networks' own features, so that those of two networks are on different scales.
Trials are compared by mean IoU: on all true masks of the scored images, or as estimated with `sweep.num_labelled`.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from ray import tune

from raypipe import storage
from raypipe.artifacts import digest
from raypipe.cluster.connect import connect
from raypipe.cluster.machines import Machine, divide
from raypipe.config import RunConfig, flat_changes, to_yaml, trial_config
from raypipe.doctor.fit import check_fit
from raypipe.doctor.preflight import preflight_nodes
from raypipe.doctor.workload import trains_classifier
from raypipe.outputs.records import open_folder
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.needs import makes_seeds
from raypipe.pipelines.networks import given_checkpoint
from raypipe.pipelines.seeds import given_seeds
from raypipe.pipelines.tuning import run_experiment
from raypipe.pipelines.walk.sweep import scored_rows
from raypipe.run import Run
from raypipe.screen.worker import in_worker
from raypipe.stages.walk_scores import Setting
from raypipe.streams.collect import collect, rows_digest
from raypipe.training.trainer import read_metrics
from raypipe.uri import parent

logger = logging.getLogger(__name__)

RUN, SHARED = "ray_tune", "ray_tune_shared"
"""Ray Tune's own folders: which trials are done, and what was made for several of them. A sweep that was interrupted
goes on from there."""

_NOT_IN_TRIALS: Mapping[str, bool | set[str]] = {
    **dict.fromkeys(("manifest", "out", "cluster", "budget", "checkpoints"), True),
    **dict.fromkeys(("evaluation", "segmenter", "segmentation", "calibration"), True),
    "refinement": {"method", "power", "compat_bilateral"},  # trimaps are made where its device says
}
"""Parts of the config that no trial depends on: where things are, and what comes after the walk."""

_RESULTS = ("score", "low", "high", "mean_iou", "objective", *Setting._fields, "loss")


@dataclass(frozen=True, kw_only=True)
class TrialsResult:
    """What an outer sweep found."""

    folder: str
    table: pd.DataFrame
    """One row a trial, the best first; those without a score last, with the reason as `status`."""
    best_config: str
    """URI of the best trial's config, with its setting of the walk."""


def run_trials(config: RunConfig) -> TrialsResult:
    """Runs the trials that aren't done yet and compares them all.

    Raises:
        ValueError: if there are too few true masks to compare by, before anything starts.
        RuntimeError: if no trial has a score.
    """
    context = open_context(config)
    _check_truth(context)
    connect(config.cluster)
    preflight_nodes(context)
    provenance = trials_provenance(context)
    folder = storage.join(config.out, "trials", digest(provenance))
    open_folder(folder, provenance)
    return _run(context, folder)


@storage.patience()
def _run(context: Context, folder: str) -> TrialsResult:
    config = context.config
    if groups := sharing(context):
        made = _fit(make_shared, context, folder, SHARED, {"trials": tune.grid_search(groups)})
        if failed := [result.error for result in made if result.error is not None]:
            raise RuntimeError(f"what several trials need could not be made: {failed[0]}") from failed[0]
    space = {name: tune.grid_search(list(values)) for name, values in config.sweep.training.items()}
    trials = _fit(run_trial, context, folder, RUN, space)
    rows = pd.DataFrame([trial_row(trial) for trial in trials]).sort_values("score", ascending=False, kind="stable")
    best, table = trials[int(rows.index[0])], rows.reset_index(drop=True)
    storage.write_bytes_atomic(storage.join(folder, "table.parquet"), table.to_parquet(index=False))
    storage.write_bytes_atomic(storage.join(folder, "table.csv"), table.to_csv(index=False).encode())
    if table["score"].isna().all():
        raise RuntimeError(f"no trial has a score: {'; '.join(table['status'])}. The same command tries again")
    setting = table.iloc[0][list(Setting._fields)].to_dict()
    changes = flat_changes(best.config or {}) | {f"walk.{name}": value for name, value in setting.items()}
    best_config = storage.join(folder, "best.yaml")
    storage.write_bytes_atomic(best_config, to_yaml(trial_config(config, changes)).encode())
    return TrialsResult(folder=folder, table=table, best_config=best_config)


def sharing(context: Context) -> list[list[dict[str, Any]]]:
    """The changes of trials that have a classifier in common which isn't given, grouped by it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for changes in context.config.sweep.training_changes:
        trial = Context(trial_config(context.config, changes), context.manifest)
        if trains_classifier(trial):
            # Maps of saliency that are missing are the same for equal weights, which the config names.
            plan = classifier_plan(trial, maps=None)
            groups.setdefault(digest([plan.provenance(), trial.config.saliency]), []).append(changes)
    return [group for group in groups.values() if len(group) > 1]


def trials_at_once(context: Context, number: int) -> tuple[int, Machine]:
    """How many trials the cluster holds at the same time, at most `number`, and each one's part of it."""
    for count in range(number, 1, -1):
        part = divide(context.machine, count)
        if part is not None and all(found.status != "problem" for found in check_fit(replace(context, part=part))):
            return count, part
    return 1, context.machine


def make_shared(changes: dict[str, Any], *, config: RunConfig, part: Machine) -> None:
    """Makes the classifier of several trials, and the seeds of each of them; Ray Tune calls it in a process."""
    for trial in changes["trials"]:
        run = _open(trial_config(config, trial), part)
        run.train_classifier()
        if makes_seeds(run.config):
            run.make_seeds()
    tune.report({"made": len(changes["trials"])})


def run_trial(changes: dict[str, Any], *, config: RunConfig, part: Machine) -> None:
    """Trains and sweeps one config; Ray Tune calls it in a process of its own."""
    run = _open(trial_config(config, flat_changes(changes)), part)
    sweep = run.sweep()
    choice = sweep.choice
    found = sweep.table.loc[choice.index, ["score", "mask_mean_iou", "objective"]].astype(float).to_dict()
    estimated = config.sweep.num_labelled > 0
    epochs = [] if given_seeds(run.context) else read_metrics(parent(run.train_classifier().uri))
    tune.report(
        {
            "score": found["score" if estimated else "mask_mean_iou"],
            "low": choice.low if estimated else math.nan,
            "high": choice.high if estimated else math.nan,
            "mean_iou": found["mask_mean_iou"],
            "objective": found["objective"],
            **sweep.chosen._asdict(),
            "loss": epochs[-1]["loss"] if epochs else math.nan,  # a given classifier has none
        }
    )


def _open(config: RunConfig, part: Machine) -> Run:
    in_worker()
    for name in ("", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return Run(replace(open_context(config), part=part))


def _fit(
    step: Callable[..., None], context: Context, folder: str, name: str, space: dict[str, Any]
) -> list[tune.Result]:
    """Runs every trial of a space that isn't done yet, as many at once as the cluster holds."""
    number = math.prod(len(values["grid_search"]) for values in space.values())
    count, part = trials_at_once(context, number)
    logger.info("%s: %d trials, %d at once, each on %s", name, number, count, part)
    grid = run_experiment(
        step,
        known={"config": context.config, "part": part},
        space=space,
        settings=tune.TuneConfig(max_concurrent_trials=count),
        number=number,
        folder=folder,
        name=name,
    )
    return [grid[index] for index in range(len(grid))]


def _check_truth(context: Context) -> None:
    sweep = context.config.sweep
    rows = collect(scored_rows(context).select(["mask_uri"]))
    known, needed = len(rows) - rows["mask_uri"].null_count, max(1, sweep.num_labelled)
    if known < needed:
        raise ValueError(
            f"sweep.training compares networks by true masks and needs {needed}, but {known} of the {len(rows)} scored "
            "images have one (mask_uri): objectives of different networks are on different scales. Give more, let "
            "sweep.splits name images that have some, or sweep the walk alone, which needs none"
        )


def trials_provenance(context: Context) -> dict[str, Any]:
    """What the trials' results depend on. Reads the checkpoints that are given, which also checks them."""
    config = context.config
    given = []
    for changes in config.sweep.training_changes:
        trial = Context(trial_config(config, changes), context.manifest)
        given += [
            given_checkpoint(trial, task="classifier"),
            given_checkpoint(trial, task="affinity"),
            given_seeds(trial),
        ]
    rows = context.rows(None)
    return {
        "config": config.model_dump(mode="json", exclude=_NOT_IN_TRIALS),
        "rows": rows_digest(rows, rows.columns),
        "classes": context.classes,
        "checkpoints": [found and found.digest for found in given],
    }


def trial_row(result: tune.Result) -> dict[str, Any]:
    """What a trial changed, what it found, and what became of it."""
    metrics = result.metrics or {}
    if result.error is not None:
        status = f"failed: {str(result.error).strip().splitlines()[-1]}"
    elif "score" in metrics:
        status = "done"
    else:
        status = f"stopped after {metrics['epoch'] + 1} epochs"
    changes = {
        name: json.dumps(value) if isinstance(value, list | tuple | dict) else value
        for name, value in flat_changes(result.config or {}).items()
    }
    values = {name: metrics.get(name, math.nan) for name in _RESULTS}
    return changes | values | {"seconds": metrics.get("time_total_s", math.nan), "status": status}


def trials_table(result: TrialsResult) -> str:
    """The trials as text."""
    table = result.table.dropna(axis=1, how="all")
    percent = {name: 100 * table[name] for name in ("score", "low", "high", "mean_iou") if name in table}
    return table.assign(**percent).to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="")
