import os
import signal
from typing import Any

import pytest
from ray import tune
from ray.tune.tune import _setup_signal_catching

from raypipe.pipelines import tuning
from raypipe.pipelines.tuning import _Ended, run_experiment
from raypipe.screen.step import step


def test_trials_that_have_ended_are_counted() -> None:
    ended = _Ended(8)
    ended.on_trial_complete(1, [], None)
    with step("ray_tune", unit="trials") as counted:
        ended.on_trial_error(2, [], None)
    assert (counted.done, counted.total) == (2, 8)


@pytest.mark.parametrize("interrupts", [0, 1])
def test_an_interrupted_experiment_is_no_finished_one(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, interrupts: int
) -> None:
    """With the handler of Tune, which ends the loop over the trials."""

    class Tuner:
        can_restore = staticmethod(lambda *_, **__: False)

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fit(self) -> str:
            ended = _setup_signal_catching()
            for _ in range(interrupts):
                os.kill(os.getpid(), signal.SIGINT)
            assert ended.is_set() == bool(interrupts)
            return "the trials so far"

    monkeypatch.setattr(tuning.tune, "Tuner", Tuner)
    before = signal.getsignal(signal.SIGINT)

    def run() -> Any:
        return run_experiment(
            lambda _: None,
            known={},
            space=None,
            settings=tune.TuneConfig(),
            number=1,
            folder=str(tmp_path),
            name="ray_tune",
        )

    if interrupts:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        assert run() == "the trials so far"
    assert signal.getsignal(signal.SIGINT) is before
