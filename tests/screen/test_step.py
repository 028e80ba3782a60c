import logging
from collections.abc import Iterator

import pytest

from raypipe.screen import step as module
from raypipe.screen.step import Step, at_ends, is_there, plan_steps, show_on, step, time_text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Said(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    """What is said of two steps."""
    handler = Said()
    monkeypatch.setattr(module.logger, "handlers", [handler])
    level = module.logger.level
    module.logger.setLevel(logging.INFO)
    plan_steps(["classifier", "seeds"])
    yield handler
    show_on(None)
    module.logger.setLevel(level)


def test_how_far_a_step_is() -> None:
    clock = Clock()
    seeds = Step("seeds", unit="images", clock=clock)
    assert seeds.text() == "step 2 of 2, seeds: starting"
    clock.now = 10
    seeds.update(8, 2000)
    assert seeds.text() == "step 2 of 2, seeds: 8 of 2,000 images"
    clock.now = 12
    seeds.update(16, 2000, quarantined=3)
    assert seeds.text() == "step 2 of 2, seeds: 16 of 2,000 images, 3 quarantined, 4.0/s, 8 min left"


def test_without_a_terminal_a_line_comes_every_half_minute(said: Said) -> None:
    clock = Clock()
    seeds = Step("seeds", unit="images", clock=clock)
    for second in range(100):
        clock.now = second
        seeds.update(second, 100)
    assert [message.split(" images")[0] for message in said.messages] == [
        f"step 2 of 2, seeds: {second} of 100" for second in (30, 60, 90)
    ]


def test_the_first_count_is_shown_where_it_was_waited_for(said: Said) -> None:
    for start in (4, 6):
        clock = Clock()
        seeds = Step("seeds", unit="images", clock=clock)
        clock.now = start
        seeds.update(8, 40)
        seeds.update(16, 40)
        assert said.messages == (["step 2 of 2, seeds: 8 of 40 images"] if start == 6 else [])


def test_a_step_ends_with_one_line_and_what_is_to_be_done_then(said: Said) -> None:
    ends: list[str] = []
    at_ends(lambda: ends.append(said.messages[-1]))
    with step("seeds") as seeds:
        seeds.update(40, 40, quarantined=2)
        seeds.note = "12 computed now"
    at_ends(None)
    assert said.messages == ["step 2 of 2, seeds: 40 of 40 images, 2 quarantined, 12 computed now, 0 s"] == ends
    assert module.current() is None


def test_what_is_asked_for_again_is_said_once(said: Said) -> None:
    for is_needed in (True, False, False):
        with step("seeds") as seeds:
            seeds.is_needed = is_needed
    is_there("seeds")
    is_there("classifier")
    is_there("classifier")
    assert len(said.messages) == 2
    assert said.messages[1] == "step 1 of 2, classifier: made before"


def test_what_fails_has_no_last_line(said: Said) -> None:
    with pytest.raises(ValueError, match="x"), step("seeds"):
        raise ValueError("x")
    assert not said.messages


def test_a_step_that_is_not_planned_has_no_number(said: Said) -> None:
    with step("calibrated") as counted:
        counted.update(1, 1)
    assert said.messages == ["calibrated: 1 of 1 image, 0 s"]


def test_times() -> None:
    assert [time_text(seconds) for seconds in (5, 99, 120, 5999, 9000)] == ["5 s", "99 s", "2 min", "100 min", "2.5 h"]
