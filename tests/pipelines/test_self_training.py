"""Rounds of self-training: when they go on, and what they look at. Real networks are in test_segmenter.py."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stream_outputs import write_masks, write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.rows import Rows
from raypipe.pipelines import self_training
from raypipe.pipelines.context import Context
from raypipe.pipelines.self_training import self_train
from raypipe.results import Decision, StreamSummary
from raypipe.schema import GATES, MASKS
from raypipe.streams.collect import collect
from raypipe.streams.plan import Plan

KINDS = {"weak": "weak", "weak too": "weak", "nothing in it": "weak", "true": "mask", "free": "none"}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    rows: list[dict[str, Any]] = [
        {"image_id": name, "image_uri": name, "labels": [] if name == "nothing in it" else ["cat"], "split": "train"}
        | {"supervision": kind}
        for name, kind in KINDS.items()
    ]
    given = [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out", "segmenter.rounds=3"]
    return Context(load_config("preset: demo", given), Manifest.from_rows(rows, ("cat", "dog")))


class Rounds:
    """In the place of streams and trainings: own masks whose judged scores rise as they are told to."""

    def __init__(self, folder: Path, rises: Sequence[float], *, computed: int) -> None:
        self.folder, self.computed = folder, computed
        self.rises = list(rises)
        self.passes = 0
        self.segmented: list[dict[str, Any]] = []
        self.judged: list[list[str]] = []
        self.trained_on: list[Artifact] = []

    def run(self, _context: Context, plan: Plan, rows: Rows, **_options: Any) -> tuple[Artifact, StreamSummary]:
        summary = StreamSummary(
            num_rows=0, num_finished=0, num_quarantined=0, num_computed=self.computed, seconds=0, total_seconds=0
        )
        table = collect(rows)
        ids = table["image_id"].to_pylist()
        if plan.name == "segments":
            self.segmented = table.to_pylist()
            name = f"own{self.passes}"
            self.passes += 1
            found = [{"image_id": name} for name in ids]
            return write_outputs(str(self.folder / name), MASKS, found, digest=name), summary
        self.judged.append(sorted(ids))
        rise = self.rises[len(self.judged) - 1]
        folder = str(self.folder / f"gate{len(self.judged)}")
        found = [{"image_id": name, "refined_before": 0.5, "refined_after": 0.5 + rise} for name in ids]
        return write_outputs(folder, GATES, found, digest="g"), summary

    def train(self, _context: Context, *, masks: Artifact, classifier: Artifact, own_masks: bool) -> Artifact:
        assert own_masks
        assert classifier.digest == "c"
        self.trained_on.append(masks)
        return Artifact(f"segmenter{len(self.trained_on)}", "s")


def run_rounds(
    context: Context, folder: Path, monkeypatch: pytest.MonkeyPatch, rises: Sequence[float], *, computed: int = 1
) -> tuple[Rounds, Artifact, list[Decision]]:
    rounds = Rounds(folder, rises, computed=computed)
    monkeypatch.setattr(Context, "run", lambda context, *args, **options: rounds.run(context, *args, **options))
    monkeypatch.setattr(self_training, "train_segmenter", rounds.train)
    pseudo = write_masks(str(folder / "pseudo"), [{"image_id": name} for name in KINDS])
    last, decisions = self_train(
        context, segmenter=Artifact("segmenter0", "s"), masks=pseudo, classifier=Artifact("classifier", "c")
    )
    return rounds, last, decisions


@pytest.mark.parametrize(
    ("rises", "kept", "network"),
    [
        ([0.0], 0, 0),  # own masks as good as the pseudo-masks aren't better
        ([0.1, -0.1], 0, 0),  # they are worth learning from, but the network that does is worse
        ([0.1, 0.2, -0.1], 1, 1),
        ([0.1, 0.2, 0.1, 0.1], 3, 3),  # segmenter.rounds
    ],
)
def test_a_network_is_kept_where_its_masks_are_better_than_those_it_has_learned_from(
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rises: list[float],
    kept: int,
    network: int,
) -> None:
    rounds, last, decisions = run_rounds(context, tmp_path, monkeypatch, rises)
    names = ["own masks", "round 1", "round 2", "round 3"][: len(rises)]
    assert [decision.refinement for decision in decisions] == names
    assert [decision.kept for decision in decisions] == [rise > 0 for rise in rises]
    assert sum(decision.kept for decision in decisions[1:]) == kept
    assert last.uri == f"segmenter{network}"
    learned = [masks.uri for masks in rounds.trained_on]
    assert learned == [str(tmp_path / f"own{number}") for number in range(len(rises) - 1)]


def test_only_labels_that_teach_are_looked_at(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without supervision are segmented freely; rows with a true mask need no other."""
    rounds, _, _ = run_rounds(context, tmp_path, monkeypatch, [0.0])
    labels = {row["image_id"]: row["labels"] for row in rounds.segmented}
    assert labels == {"weak": ["cat"], "weak too": ["cat"], "nothing in it": [], "free": None}
    assert rounds.judged == [["weak", "weak too"]]


def test_masks_that_nobody_can_judge_are_no_better(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"labels": []} for row in context.manifest.table.to_pylist()]
    unlabelled = Context(context.config, Manifest.from_rows(rows, context.classes))
    rounds, last, (decision,) = run_rounds(unlabelled, tmp_path, monkeypatch, [0.1])
    assert last == Artifact("segmenter0", "s")
    assert rounds.trained_on == []
    assert (decision.kept, decision.num_images) == (False, 0)
    assert decision.reason == "no image with labels could be judged; the network stays"


def test_a_decision_stays_until_it_is_renewed(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that has grown since has another sample."""
    _, _, decided = run_rounds(context, tmp_path / "first", monkeypatch, [0.1, -0.1])
    rounds, last, again = run_rounds(context, tmp_path / "second", monkeypatch, [])
    assert again == decided
    assert last == Artifact("segmenter0", "s")
    assert rounds.judged == []
    renewing = replace(context, retrain="decisions")
    rounds, last, again = run_rounds(renewing, tmp_path / "third", monkeypatch, [0.1, 0.1, -0.1])
    assert [decision.kept for decision in again] == [True, True, False]
    assert last == Artifact("segmenter1", "s")
    assert len(rounds.judged) == 3


@pytest.mark.parametrize(("computed", "level"), [(1, "INFO"), (0, "DEBUG")], ids=["now", "before"])
def test_what_was_judged_before_is_in_the_log_alone(
    computed: int,
    level: str,
    context: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="raypipe.pipelines.self_training")
    _, _, (decision,) = run_rounds(context, tmp_path, monkeypatch, [0.0], computed=computed)
    assert [record.levelname for record in caplog.records] == [level, level]
    assert caplog.messages[1] == f"self-training: {decision}"


def test_a_classifier_that_knows_nothing_ends_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_training, "knows_nothing", lambda _: "it knows nothing")
    rounds, last, decisions = run_rounds(context, tmp_path, monkeypatch, [])
    assert last == Artifact("segmenter0", "s")
    assert rounds.judged == []
    assert [(each.kept, each.num_images, each.reason) for each in decisions] == [
        (False, 0, "it knows nothing; the network stays")
    ]
