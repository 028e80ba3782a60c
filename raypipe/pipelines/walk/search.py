"""Searches settings of the walk beyond a grid: trials of Ray Tune over maps and features that are computed once.

A trial (`raypipe.pipelines.walk.trial`) is one walk, of a beta and a radius, that scores all alphas and numbers of
steps. Of the trials ASHA lets the best third see three times the images. What is compared is the gain over the first
trial, the one with the config's own setting, on the same images: the best of many settings on few images owes much to
chance, which is so left out. Optuna's Gaussian process, which a smooth function of two variables suits, proposes the
next beta and radius.

Trials come one after the other and each is as wide as the cluster: its images are scored in tasks of a few. So what the
process knows never depends on which trial was faster, and a search repeats.

Sources: Snoek et al., "Practical Bayesian Optimization of Machine Learning Algorithms", NeurIPS 2012; Li et al., "A
System for Massively Parallel Hyperparameter Tuning", MLSys 2020, §3 (ASHA).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from ray import tune

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.rows import Rows
from raypipe.data.shards import Place
from raypipe.outputs.load import held
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import with_seeds
from raypipe.pipelines.steps import (
    compute_cams,
    decode_images,
    fetch_images,
    given_loads,
    pixels_per_pass,
)
from raypipe.pipelines.tuning import run_experiment
from raypipe.pipelines.walk.separations import Separations, read_separations
from raypipe.pipelines.walk.setting_scores import NUM_FINALISTS, known_settings
from raypipe.pipelines.walk.trial import ALPHAS, REDUCTION, STEPS, rounded, rungs, try_walk
from raypipe.schema import CELLS, SHARD_ROW, SHARD_URI
from raypipe.stages.store_cells import StoreCells
from raypipe.stages.walk_scores import Setting, WalkScores
from raypipe.streams.collect import collect, draw
from raypipe.streams.plan import Plan
from raypipe.uri import name_of

logger = logging.getLogger(__name__)

EXPERIMENT = "ray_tune"
"""Ray Tune's own folder: which trials are done. A search that was interrupted goes on from there."""

NUM_TRIALS = 10
NUM_RANDOM = 4
"""Trials before the Gaussian process proposes any, those of known settings included."""

BETAS = (1.0, 64.0)
"""From where to where beta is searched, on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search has found."""

    scored: Artifact
    """Folder of the stream with maps and cells."""
    separations: Separations
    """Of the settings that were scored on all images."""
    trials: pd.DataFrame
    """One row a trial, in the order in which they ran."""
    results: tune.ResultGrid
    """The same as Ray Tune has it."""


def check_installed() -> None:
    """Raises ValueError without Optuna, before anything is computed."""
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError("sweep.search=optuna needs Optuna: run pip install -e '.[tune]' in raypipe's clone") from error


def cells_plan(context: Context, *, maps: Artifact, affinity: Artifact | None) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → StoreCells; arguments as of `masks_plan`."""
    config = context.config
    store = StoreCells(
        affinity=affinity,
        radius=config.affinity.radius,
        max_side=config.images.max_side,
        precision=config.precision,
        pixels_per_pass=pixels_per_pass(config),
    )
    return Plan(
        name="cells",
        takes=given_loads(context, maps),
        stages=(fetch_images(context), decode_images(context), compute_cams(context, maps), store),
        schema=CELLS,
        classes=context.classes,
    )


def search_space(context: Context) -> dict[str, Any]:
    """What a search depends on beside its rows, its cells and `sweep`."""
    return {
        "count_padding": context.config.walk.count_padding,
        "alphas": ALPHAS,
        "steps": STEPS,
        "betas": BETAS,
        "trials": [NUM_TRIALS, NUM_RANDOM, REDUCTION, NUM_FINALISTS],
        "known": list(known_settings(context).values()),
    }


def search_walk(context: Context, rows: Rows, plan: Plan, *, maps: Artifact, folder: str) -> Search:
    """Stores the cells of the rows, and searches.

    Args:
        context: config and manifest.
        rows: to score on.
        plan: `cells_plan`.
        maps: as of `masks_plan`.
        folder: URI of the folder that holds the experiment.

    Raises:
        ValueError: if no image has a label.
        RuntimeError: if no trial came to its end.
    """
    config = context.config
    scored, _ = context.run(with_seeds(context, plan, maps=maps), rows)
    places = labelled_places(held(rows, scored), seed=config.seed)
    if not places:
        raise ValueError("expected at least one image with a label to choose a setting by, got none")
    known = tuple(known_settings(context).values())
    results = run_experiment(
        try_walk,
        known={
            "places": places,
            "settings": known,
            "walk": WalkScores(
                settings=(),
                stride=4,
                count_padding=config.walk.count_padding,
                cam_stride=config.cams.out_stride,
                choice="given",
            ),
            "folder": storage.join(folder, "trials"),
        },
        space=None,
        settings=_tune_config(known, len(places), longest=config.affinity.radius, seed=config.seed),
        number=NUM_TRIALS,
        folder=folder,
        name=EXPERIMENT,
        verbose=0,
    )
    ran = sorted((results[index] for index in range(len(results))), key=_number)
    trials = pd.DataFrame([_trial_row(result) for result in ran])
    storage.write_bytes_atomic(storage.join(folder, "trials.csv"), trials.to_csv(index=False).encode())
    done = [result.metrics["scores"] for result in ran if result.metrics and result.metrics.get("scores")]
    logger.info("search: %d trials, %d of them on all %d images", len(trials), len(done), len(places))
    if not done:
        raise RuntimeError(f"no trial came to its end: {'; '.join(trials['status'])}. The same command tries again")
    return Search(scored=scored, separations=read_separations(done), trials=trials, results=results)


def labelled_places(rows: Rows, *, seed: int) -> list[Place]:
    """Where the cells of images with labels are, in a random order that is the same however the rows come."""
    table = collect(rows.select(["image_id", "labels", SHARD_URI, SHARD_ROW]))
    found = [row for row in table.to_pylist() if row["labels"]]
    order = draw([row["image_id"] for row in found], None, seed=seed)
    return [Place(found[index][SHARD_URI], found[index][SHARD_ROW]) for index in order]


def _tune_config(known: Sequence[Setting], num_images: int, *, longest: int, seed: int) -> tune.TuneConfig:
    import optuna
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would warn of a package that saves time over many trials
    points = list(dict.fromkeys((setting.beta, setting.radius) for setting in known))
    betas, radii = zip(*points, strict=True)
    space = {
        "beta": optuna.distributions.FloatDistribution(min(*betas, *BETAS), max(*betas, *BETAS), log=True),
        "radius": optuna.distributions.IntDistribution(min(2, *radii), longest),
    }
    search = OptunaSearch(
        space,
        metric="gain",
        mode="max",
        points_to_evaluate=[{"beta": beta, "radius": radius} for beta, radius in points],
        sampler=optuna.samplers.GPSampler(seed=seed, n_startup_trials=NUM_RANDOM),
    )
    asha = ASHAScheduler(
        time_attr="num_images",
        metric="gain",
        mode="max",
        max_t=num_images,
        grace_period=rungs(num_images)[0],
        reduction_factor=REDUCTION,
    )
    return tune.TuneConfig(
        num_samples=NUM_TRIALS, max_concurrent_trials=1, search_alg=search, scheduler=asha, reuse_actors=True
    )


def _number(result: tune.Result) -> int:
    """Of a trial, from 1, in the order in which they ran: results of a search that went on have none."""
    folder = name_of(result.path)  # such as try_walk_132c9aad_1_beta=8.0000,radius=5_2026-11-29_22-28-55
    return int(folder.removeprefix(f"{try_walk.__name__}_").split("_")[1])


def _trial_row(result: tune.Result) -> dict[str, Any]:
    """What a trial tried, what it found, and what became of it."""
    metrics, point = result.metrics or {}, result.config or {}
    if metrics.get("scores"):
        status = "done"
    elif result.error is not None:
        status = f"failed: {str(result.error).strip().splitlines()[-1]}"
    else:
        status = "stopped"
    names = ("alpha", "num_steps", "objective", "gain", "num_images")
    return {
        "beta": rounded(point.get("beta", math.nan)),
        "radius": point.get("radius"),
        **{name: metrics.get(name, math.nan) for name in names},
        "seconds": metrics.get("time_total_s", math.nan),
        "status": status,
    }
