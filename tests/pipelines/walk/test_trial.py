"""A trial of a search of the walk, without Ray; `test_sweep.py` runs a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from raypipe.data.shards import Place
from raypipe.pipelines.walk import trial as walk_trial
from raypipe.pipelines.walk.separations import read_separations
from raypipe.pipelines.walk.setting_scores import NUM_FINALISTS
from raypipe.pipelines.walk.trial import ALPHAS, STEPS, rungs, try_walk
from raypipe.stages.walk_scores import Setting, WalkScores

OWN, PAPER = Setting(32.0, 8.0, 16, 5), Setting(16.0, 8.0, 256, 5)
WALK = WalkScores(settings=(), stride=4, count_padding=False, cam_stride=4, choice="given")
PLACES = [Place(f"shard{index}", index) for index in range(40)]


@pytest.mark.parametrize(
    ("num_images", "expected"), [(1, [1]), (5, [1, 3, 5]), (40, [4, 12, 40]), (1000, [111, 333, 1000])]
)
def test_rungs_have_three_times_the_images(num_images: int, expected: list[int]) -> None:
    assert rungs(num_images) == expected


class Trials:
    """Trials in this process: what they reported, and the settings that each number of images was scored with."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.settings = (OWN, PAPER)
        self.reports: list[dict[str, Any]] = []
        self.scored: list[tuple[int, int]] = []

    def score(self, function: Any, chunks: list[list[Place]], **_: Any) -> list[np.ndarray]:
        """Masks are the better the nearer a setting is to alpha 16, beta 4, 32 steps and radius 4."""
        (walk,) = function.args
        off = [
            abs(np.log2(np.array([alpha, beta, num_steps + 1]) / [16, 4, 33])).sum() + abs(radius - 4)
            for alpha, beta, num_steps, radius in walk.settings
        ]
        self.scored.append((sum(map(len, chunks)), len(off)))
        return [np.tile(0.5 - 0.01 * np.array(off), (2, len(chunk), 1)) for chunk in chunks]

    def run(self, beta: float, radius: int) -> None:
        point = {"beta": beta, "radius": radius}
        try_walk(point, places=PLACES, settings=self.settings, walk=WALK, folder=self.folder)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trials:
    made = Trials(tmp_path)
    monkeypatch.setattr(walk_trial, "in_tasks", made.score)
    monkeypatch.setattr(tune, "report", made.reports.append)
    return made


def test_the_trial_of_known_settings_reports_in_the_end_and_keeps_them(trials: Trials) -> None:
    trials.run(8.0, 5)
    (report,) = trials.reports
    assert (report["num_images"], report["alpha"], report["num_steps"]) == (40, 16.0, 32)
    assert report["gain"] == 0
    found = read_separations([report["scores"]])
    assert {OWN, PAPER} <= set(found.settings)
    assert found.num_images == 40


def test_a_known_beta_of_many_digits_is_found_again(trials: Trials) -> None:
    own = OWN._replace(beta=12.3456)
    trials.settings = (own, PAPER)
    trials.run(own.beta, 5)
    (report,) = trials.reports
    assert own in read_separations([report["scores"]]).settings
    trials.run(12.3, 5)
    assert own not in read_separations([trials.reports[-1]["scores"]]).settings


def test_a_trial_scores_fewer_settings_on_more_images(trials: Trials) -> None:
    trials.run(8.0, 5)
    trials.scored.clear()
    trials.run(4.0004, 4)
    ladder = len(ALPHAS) * len(STEPS)
    assert trials.scored == [(1, ladder), (3, 27), (8, NUM_FINALISTS), (28, NUM_FINALISTS)]
    _, *reports = trials.reports
    assert [report["num_images"] for report in reports] == [4, 12, 40]
    assert [bool(report["scores"]) for report in reports] == [False, False, True]
    assert reports[0]["gain"] == pytest.approx(reports[2]["gain"])
    assert reports[2]["gain"] == pytest.approx(reports[2]["objective"] - trials.reports[0]["objective"])
    assert reports[2]["gain"] > 0
    assert {setting.beta for setting in read_separations([reports[2]["scores"]]).settings} == {4.0}
