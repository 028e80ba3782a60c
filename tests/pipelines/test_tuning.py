from raypipe.pipelines.tuning import _Ended
from raypipe.screen.step import step


def test_trials_that_have_ended_are_counted() -> None:
    ended = _Ended(8)
    ended.on_trial_complete(1, [], None)
    with step("ray_tune", unit="trials") as counted:
        ended.on_trial_error(2, [], None)
    assert (counted.done, counted.total) == (2, 8)
