"""When states are due, without Ray: several workers whose clocks differ, and notices that nodes leave."""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import ray.train.collective

from raypipe.training.saving import SaveTimer


class Worker:
    """A worker alone: what it says as worker 0 is what it is told."""

    def __init__(self, *, seconds: float) -> None:
        self.now, self.looks = 100.0, 0
        self.timer = SaveTimer(seconds=seconds, clock=lambda: self.now)

    def run(self, steps: int, *, each: float) -> Iterator[float]:
        """Takes steps of so many seconds; yields when a state was due, and saves it in a second."""
        for _ in range(steps):
            self.now += each
            if self.timer.is_due():
                yield self.now
                self.now += 1
                self.timer.saved()


@pytest.fixture(autouse=True)
def train(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In the place of Ray Train: worker 0's words, how often workers met, and the notice that there is."""
    found = SimpleNamespace(words=[], notice=None)

    def broadcast(word: dict[str, Any]) -> dict[str, Any]:
        found.words.append(word)
        return word

    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", broadcast)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: found.notice)
    return found


@pytest.mark.parametrize("each", [0.01, 0.3, 2.0])
def test_a_state_every_so_often_and_few_looks(each: float, train: SimpleNamespace) -> None:
    worker = Worker(seconds=60)
    steps = int(3600 / each)
    times = [100.0, *worker.run(steps, each=each)]
    between = [after - before for before, after in pairwise(times)]
    assert len(between) >= 3500 / 61
    assert max(between) <= 61, "a second of them is the saving itself"
    assert min(between) >= 60 - 10
    assert len(train.words) <= 3600 / 5 * 1.5 + 20, "workers meet every five seconds"


def test_steps_that_get_slow_are_noticed() -> None:
    worker = Worker(seconds=60)
    assert list(worker.run(3000, each=0.01)) == []  # 30 seconds
    (due, *_) = worker.run(1000, each=1.0)
    assert due - 100 < 60 + 2 * 500, "as many steps as were expected to take five seconds, and no more"


def test_workers_save_after_the_same_step_whatever_their_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    first = Worker(seconds=60)
    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda word: (said.append(word), word)[1])
    due = []
    for step in range(1000):
        first.now += 0.5
        if first.timer.is_due():
            first.timer.saved()
            due.append(step)
    words = iter(said)
    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda _word: next(words))
    other, found = Worker(seconds=60), []
    for step in range(1000):
        other.now += 0.1 + step % 7
        if other.timer.is_due():
            other.timer.saved()
            found.append(step)
    assert found == due
    assert len(due) == 500 // 58


def test_a_notice_saves_once_for_each_node(train: SimpleNamespace) -> None:
    worker = Worker(seconds=600)
    assert list(worker.run(20, each=1)) == []
    train.notice = SimpleNamespace(preempted_node_ids=["a"])
    begun = worker.now
    (due,) = worker.run(60, each=1)
    assert due - begun <= 10
    train.notice = SimpleNamespace(preempted_node_ids=["a", "b"])
    assert len([*worker.run(60, each=1)]) == 1
