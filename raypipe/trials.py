"""Outer sweep: trains networks in every way that `sweep.training` names and compares them, on Ray Tune.

A trial is a config of its own: its networks, then the sweep of the walk with them. What an earlier trial made is found
by content, so trials that differ in the AffinityNet alone share the classifier.

The sweep's objective is measured in the networks' own features, so that those of two networks are on different scales.
Trials are compared by mean IoU: on all true masks of the scored images, or as estimated with `sweep.num_labelled`.
"""

import json
import logging
import math
import os
from dataclasses import dataclass
from typing import Any

import pandas as pd
import ray.data
from ray import tune

import raypipe
from raypipe import storage
from raypipe.artifacts import digest
from raypipe.config import RunConfig, flat_changes, to_yaml, trial_config
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.seeds import given_cams
from raypipe.pipelines.sweep import scored_rows
from raypipe.pipelines.train import given_checkpoint
from raypipe.run import open_run
from raypipe.stages.score_settings import Setting
from raypipe.streams.records import open_folder, set_digest
from raypipe.training.trainer import read_metrics

RUN = "ray_tune"
"""Ray Tune's own folder: which trials are done. A sweep that was interrupted goes on from there."""

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
    provenance = _provenance(context)
    folder = storage.join(config.out, "trials", digest(provenance))
    open_folder(folder, provenance)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # what relative paths on sys.path count from
    grid = _tuner(config, folder).fit()
    trials = [grid[index] for index in range(len(grid))]
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


def run_trial(changes: dict[str, Any], *, config: RunConfig) -> None:
    """Trains and sweeps one config; Ray Tune calls it in a process of its own."""
    # What a stream draws in another process than the driver's comes as a line a second.
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    run = open_run(trial_config(config, flat_changes(changes)))
    sweep = run.sweep()
    choice = sweep.choice
    found = sweep.table.loc[choice.index, ["score", "full_mean_iou", "objective"]].astype(float).to_dict()
    estimated = config.sweep.num_labelled > 0
    epochs = [] if given_cams(run.context) else read_metrics(run.train_classifier().uri.rsplit("/", 1)[0])
    tune.report(
        {
            "score": found["score" if estimated else "full_mean_iou"],
            "low": choice.low if estimated else math.nan,
            "high": choice.high if estimated else math.nan,
            "mean_iou": found["full_mean_iou"],
            "objective": found["objective"],
            **sweep.chosen._asdict(),
            "loss": epochs[-1]["loss"] if epochs else math.nan,  # a given classifier has none
        }
    )


def _tuner(config: RunConfig, folder: str) -> tune.Tuner:
    fs, path = storage.arrow_filesystem(folder)
    # A trial waits for what it starts, as a driver does: it belongs where no node goes away and takes no CPU from the
    # streams. There is one at a time: each spreads over the whole cluster, and two might write the same folder.
    place = tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    trainable = tune.with_resources(tune.with_parameters(run_trial, config=config), place)
    experiment = storage.join(path, RUN)
    if tune.Tuner.can_restore(experiment, storage_filesystem=fs):
        return tune.Tuner.restore(experiment, trainable, restart_errored=True, storage_filesystem=fs)
    return tune.Tuner(
        trainable,
        param_space={name: tune.grid_search(list(values)) for name, values in config.sweep.training.items()},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(name=RUN, storage_path=path, storage_filesystem=fs),
    )


def _check_truth(context: Context) -> None:
    sweep = context.config.sweep
    rows = scored_rows(context)
    known, needed = len(rows) - rows["mask_uri"].null_count, max(1, sweep.num_labelled)
    if known < needed:
        raise ValueError(
            f"sweep.training compares networks by true masks and needs {needed}, but {known} of the {len(rows)} scored "
            "images have one (mask_uri): objectives of different networks are on different scales. Give more, let "
            "sweep.splits name images that have some, or sweep the walk alone, which needs none"
        )


def _provenance(context: Context) -> dict[str, Any]:
    """What the trials' results depend on. Reads the checkpoints that are given, which also checks them."""
    config = context.config
    given = [
        given_checkpoint(Context(trial_config(config, changes), context.manifest), task=task)
        for changes in config.sweep.training_changes
        for task in ("classifier", "affinity")
    ]
    rows = context.rows(None)
    return {
        "config": config.model_dump(mode="json", exclude={"manifest", "out", "cluster", "budget", "checkpoints"}),
        "rows": set_digest(rows, rows.column_names),
        "classes": context.classes,
        "checkpoints": [found and found.digest for found in given],
        "raypipe": raypipe.__version__,
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
