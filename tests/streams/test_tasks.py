import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from raypipe.streams.tasks import MOST_RUNNING, Tasks, in_tasks

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def refuse(number: int) -> int:
    raise ValueError(f"{number} is bad")


@pytest.mark.parametrize("inline", [True, False])
def test_results_come_in_the_order_of_their_arguments(local_ray: None, *, inline: bool) -> None:
    found = list(in_tasks(process_of, range(2 * MOST_RUNNING), inline=inline))
    assert [number for number, _ in found] == list(range(2 * MOST_RUNNING))
    processes = {process for _, process in found}
    assert (processes == {os.getpid()}) == inline
    assert inline or os.getpid() not in processes


def test_without_ray_everything_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert list(in_tasks(process_of, [1, 2], inline=False)) == [(1, os.getpid()), (2, os.getpid())]


@pytest.mark.parametrize("inline", [True, False])
def test_an_error_comes_as_it_is(local_ray: None, *, inline: bool) -> None:
    with pytest.raises(ValueError, match="7 is bad"):
        list(in_tasks(refuse, [7], inline=inline))


def test_arguments_are_asked_for_as_tasks_end(local_ray: None) -> None:
    """A part's rows are in memory for each task that runs."""
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3 * MOST_RUNNING):
            asked.append(number)
            yield number

    found = in_tasks(process_of, items(), inline=False)
    next(found)
    assert len(asked) == MOST_RUNNING + 1
    assert len([*found]) == 3 * MOST_RUNNING - 1


def test_storage_that_is_away_is_tried_again(local_ray: None, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def flaky(number: int) -> int:
        tries = Path(folder, str(number))
        with tries.open("a") as file:
            file.write("x")
        if tries.stat().st_size < 2:
            raise ConnectionResetError("the storage is away")
        return number

    assert list(in_tasks(flaky, [1, 2], inline=False)) == [1, 2]


def test_as_many_may_be_left_running_as_one_says(local_ray: None) -> None:
    tasks = Tasks(inline=False)
    for number in range(5):
        tasks.submit(process_of, number)
    assert [number for number, _ in tasks.results(most_running=3)] == [0, 1]
    assert len(tasks.started) == 3
    assert [number for number, _ in tasks.results()] == [2, 3, 4]
    assert list(tasks.results()) == []


def test_what_runs_here_is_not_kept() -> None:
    tasks = Tasks(inline=True)
    for number in range(5):
        tasks.submit(process_of, number)
    assert [number for number, _ in tasks.results(most_running=3)] == [0, 1, 2, 3, 4]
