"""A trial of a search of the walk's settings: one walk of a beta and a radius, on more and more images.

Its expansion gives every number of steps, and all alphas walk along in it. Of its settings the best third sees the
next images, which shortens the walk, for the first time before trials are compared; whether the trial itself goes on is
the scheduler's choice.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import tune

from raypipe import storage
from raypipe.data.shards import Place
from raypipe.pipelines.walk.separations import Separations
from raypipe.pipelines.walk.setting_scores import NUM_FINALISTS
from raypipe.stages.store_cells import score_stored
from raypipe.stages.walk_scores import Setting, WalkScores
from raypipe.streams.tasks import in_tasks

REDUCTION = 3
"""Of each rung's trials, and of a trial's settings, one in three goes on to a rung of three times the images."""

ALPHAS = tuple(2.0**power for power in range(8))
STEPS = (0, *(2**power for power in range(1, 10)))
"""Alphas up to 128 and numbers of steps up to 512: what every trial scores."""

FIRST = "first.json"
"""File of the first trial's highest objective on each number of images."""

IMAGES_PER_TASK = 8


def rungs(num_images: int) -> list[int]:
    """Numbers of images after which trials are compared: about a ninth, a third and all."""
    first = max(1, num_images // REDUCTION**2)
    return [number for number in (first, first * REDUCTION) if number < num_images] + [num_images]


def try_walk(
    point: Mapping[str, Any], *, places: Sequence[Place], settings: Sequence[Setting], walk: WalkScores, folder: str
) -> None:
    """A trial; Ray Tune calls it in a process of its own.

    Args:
        point: `beta` and `radius`.
        places: of all images, in the order in which they are seen.
        settings: that are scored on all images, the config's own first, whose trial comes first; a trial that has one
            of them isn't stopped.
        walk: how the maps are scored.
        folder: where the scores of the settings that come to the end are written.
    """
    radius = int(point["radius"])
    exact = (setting.beta for setting in settings if math.isclose(setting.beta, point["beta"]))
    beta = next(exact, rounded(point["beta"]))  # a config's own may have more digits, and is to be found again
    known = [setting for setting in settings if setting[1::2] == (beta, radius)]
    ladder = [Setting(alpha, beta, num_steps, radius) for alpha, num_steps in product(ALPHAS, STEPS)]
    found = Separations.none(list(dict.fromkeys([*known, *ladder])))
    is_first, uri = settings[0] in known, storage.join(folder, FIRST)
    first = {} if is_first else json.loads(storage.read_bytes(uri))
    seen, compared = 0, rungs(len(places))
    for number in sorted({max(1, compared[0] // REDUCTION), *compared}):
        new = places[seen:number]
        chunks = [new[start : start + IMAGES_PER_TASK] for start in range(0, len(new), IMAGES_PER_TASK)]
        scoring = partial(score_stored, replace(walk, settings=found.settings))
        found = found.and_images(list(in_tasks(scoring, chunks, inline=False, cpus=1)))
        seen = number
        objective = found.objective()
        best, highest = found.settings[int(objective.argmax())], float(objective.max())
        found = found.only(_going_on(objective, len(known)))
        if number not in compared:
            continue
        if is_first:
            first[str(number)] = highest
        report = {"gain": highest - first[str(number)], "objective": highest, "num_images": number, "scores": ""}
        report |= {"alpha": best.alpha, "num_steps": best.num_steps}
        if number == len(places):
            report["scores"] = storage.join(folder, f"{beta:g}_{radius}.parquet")
            found.write(report["scores"])
            if is_first:
                storage.write_bytes_atomic(uri, json.dumps(first).encode())
        if number == len(places) or not known:
            tune.report(report)


def _going_on(objective: NDArray[np.float64], num_known: int) -> list[int]:
    """Indices of the settings that see the next images: the best third, and those that come first and are known."""
    number = max(NUM_FINALISTS, math.ceil(len(objective) / REDUCTION))
    best = np.argsort(-objective, kind="stable")[:number].tolist()
    return sorted({*best, *range(num_known)})


def rounded(beta: float) -> float:
    """A beta of three digits, which can be read and written down."""
    return float(f"{beta:.3g}")
