"""The rules of what a run needs; tests/doctor/test_workload.py has what follows from them."""

import pytest

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines.context import Context
from raypipe.pipelines.needs import has_given_seeds, judge_of, judges_refinement

MAPS, JUDGE = Artifact("maps", "m"), Artifact("judge", "j")


def make_context(*options: str) -> Context:
    config = load_config("preset: demo", ["manifest=m", "out=o", *options])
    return Context(config, Manifest.from_rows([], ("cat",)))


def test_the_judge_is_the_classifier_whose_maps_they_are() -> None:
    assert judge_of(make_context(), maps=MAPS, judge=None) == MAPS
    given = make_context("checkpoints.seeds=s")
    assert has_given_seeds(given)
    assert judge_of(given, maps=MAPS, judge=JUDGE) == JUDGE
    assert judge_of(given, maps=MAPS, judge=None) is None


@pytest.mark.parametrize(
    ("option", "judged"),
    [("refinement.gate=run", True), ("refinement.gate=image", True), ("refinement.gate=off", False)],
)
def test_a_gate_asks_a_classifier_what_a_refinement_is_worth(option: str, *, judged: bool) -> None:
    assert judges_refinement(make_context(option).config) == judged
    assert not judges_refinement(make_context(option, "refinement.method=none").config)
