"""Scores of settings of the walk by the networks' own stream, and the choice of a setting by them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.data.rows import Rows
from raypipe.ops.choice import Choice, choose_by_objective, choose_with_truth
from raypipe.ops.metrics import mean_iou_of_counts
from raypipe.ops.walk_choice import WalkChoice
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import taking_up, with_seeds
from raypipe.pipelines.steps import (
    compute_cams,
    decode_images,
    fetch_images,
    given_loads,
    pixels_per_pass,
)
from raypipe.pipelines.walk.separations import Separations
from raypipe.schema import SETTINGS, columns
from raypipe.stages.score_settings import ScoreSettings
from raypipe.stages.walk_scores import SCORES, SEPARATIONS, Setting
from raypipe.streams.collect import draw, outputs_of
from raypipe.streams.plan import Plan

NUM_FINALISTS = 10
"""The best settings without truth: `sweep.num_labelled` true masks choose among them, and where there are true masks
they are scored again at full resolution."""


def known_settings(context: Context) -> dict[str, Setting]:
    """The config's own setting and the paper's (AffinityNet §3.4)."""
    walk, radius = context.config.walk, context.config.radius
    return {
        "config": Setting(walk.alpha, walk.beta, walk.num_steps, radius),
        "paper": Setting(16.0, 8.0, 256, radius),
    }


class SettingScores:
    """Scores of settings, image by image, as `ScoreSettings` wrote them."""

    def __init__(self, rows: pa.Table, settings: Sequence[Setting], *, num_classes: int) -> None:
        self.settings = list(settings)
        self.num_classes = num_classes
        self.rows = rows.to_pylist()
        walked = [row for row in self.rows if row["class_ids"]]
        feature, colour = (
            np.array([row[name] for row in walked], np.float64).reshape(len(walked), len(settings))
            for name in SEPARATIONS
        )
        self.separations = Separations(tuple(settings), feature, colour)

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


def check_labelled(number: int, *, num_known: int, num_images: int) -> None:
    """Raises ValueError if fewer images have a true mask than are asked for."""
    if num_known < number:
        raise ValueError(
            f"sweep.num_labelled is {number}, but {num_known} of the {num_images} scored images have a true "
            "mask; lower it, or give more mask_uri"
        )


def choose(scores: SettingScores, config: RunConfig) -> Choice:
    """The choice among the first ten settings, by the objective or by `sweep.num_labelled` true masks.

    Raises:
        ValueError: if no image has a label, or fewer could be scored with a true mask than are asked for.
    """
    number, seed = config.sweep.num_labelled, config.seed
    parted = scores.separations.only(range(min(NUM_FINALISTS, len(scores.settings))))
    if not number:
        return choose_by_objective(parted.objective, num_images=parted.num_images, seed=seed)
    known = scores.with_truth()
    # Again, as some images that have one may be in quarantine.
    check_labelled(number, num_known=len(known), num_images=len(scores.rows))
    labelled = [known[i] for i in draw([scores.rows[i]["image_id"] for i in known], number, seed=seed)]

    def mean_iou(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return scores.mean_iou(labelled, weights)[: len(parted.settings)]

    return choose_with_truth(parted.objective(), mean_iou, num_images=number, num_candidates=NUM_FINALISTS, seed=seed)


def sweep_plan(
    context: Context,
    settings: Sequence[Setting],
    *,
    maps: Artifact,
    affinity: Artifact | None,
    stride: Literal[1, 4],
    choice: WalkChoice,
) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → ScoreSettings.

    Args:
        context: config and manifest.
        settings: to score.
        maps: as of `masks_plan`.
        affinity: as of `masks_plan`.
        stride: pixels per counted pixel, in both directions.
        choice: what an image chooses among with a setting.
    """
    config = context.config
    score = ScoreSettings(
        settings=tuple(settings),
        stride=stride,
        num_classes=len(context.classes) + 1,
        affinity=affinity,
        count_padding=config.walk.count_padding,
        cam_stride=config.cams.out_stride,
        choice=choice,
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
        title="all settings, coarsely" if stride > 1 else "the best settings, in full",
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
