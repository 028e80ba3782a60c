"""Failures of a training, which count from the last new state on; in the place of Ray Train, what it says."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, WorkerGroupError

from raypipe.training.attempts import NoProgress, fit_until_done

LOST = WorkerGroupError("lost", {1: RuntimeError("its node was lost")})


class Attempts:
    """Attempts that fail, each after states up to a step; the last one succeeds."""

    def __init__(self, *steps: int | None, error: Exception = LOST) -> None:
        self.steps, self.error = [*steps], error
        self.done: int | None = None
        self.starts: list[int | None] = []

    def fit(self) -> Any:
        self.starts.append(self.done)
        if not self.steps:
            return "done"
        self.done = self.steps.pop(0)
        raise self.error

    def last_state(self) -> Any:
        if self.done is None:
            return None
        place = SimpleNamespace(path=f"b/run/state_{self.done}")
        return SimpleNamespace(checkpoint=place, metrics={"epoch": 0, "step": self.done})

    def run(self, *, max_failures: int = 2) -> Any:
        return fit_until_done(
            self.fit, self.last_state, name="training of x", folder="s3://b/run", max_failures=max_failures
        )


def test_any_number_of_failures_with_states_between_them() -> None:
    attempts = Attempts(*range(1, 50))
    assert attempts.run() == "done"
    assert attempts.starts == [None, *range(1, 50)]


def test_failures_in_a_row_end_it() -> None:
    attempts = Attempts(1, 1, 1, 2, 2, 3)
    with pytest.raises(
        NoProgress,
        match=r"x: 3 failures .* worker 1 failed: RuntimeError: its node was lost.* epoch 0, step 1 \(s3://b/run/state_1\)",
    ):
        attempts.run()
    assert attempts.run() == "done", "the same command counts anew"


def test_failures_before_the_first_state_count(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NoProgress, match=r"1 failures .* No state was saved\. A worker"):
        Attempts(None, None).run(max_failures=0)
    assert Attempts(None, None, 1, 1).run() == "done"
    assert "training of x begins again: " in caplog.text


@pytest.mark.parametrize("error", [ControllerError(OSError("disk")), ActorDiedError()])
def test_a_lost_controller_is_a_failure(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert Attempts(1, error=error).run() == "done"
    assert "training of x goes on from epoch 0, step 1" in caplog.text


def test_other_errors_are_raised() -> None:
    with pytest.raises(ValueError, match="bad config"):
        Attempts(1, error=ValueError("bad config")).run()
