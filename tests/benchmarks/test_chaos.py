"""The random faults: their schedule is of a seed alone, they hit what they are meant to, and differences are seen."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import psutil
import pytest
from benchmark_files import BENCHMARKS


@pytest.fixture(scope="module")
def disorder() -> Iterator[ModuleType]:
    """The package; it isn't installed."""
    sys.path.insert(0, str(BENCHMARKS))
    import disorder.outcome  # type: ignore[import-not-found]
    import disorder.schedule  # type: ignore[import-not-found]
    import disorder.strikes  # type: ignore[import-not-found]

    yield disorder
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def schedule(disorder: ModuleType) -> ModuleType:
    return disorder.schedule


def test_same_seed_same_schedule(schedule: ModuleType) -> None:
    assert schedule.plan_strikes(3, seconds=360) == schedule.plan_strikes(3, seconds=360)
    assert len({schedule.plan_strikes(seed, seconds=360) for seed in range(20)}) == 20


def test_more_time_only_adds_faults(schedule: ModuleType) -> None:
    short, long = (schedule.plan_strikes(5, seconds=seconds) for seconds in (120, 360))
    assert long[: len(short)] == short
    assert len(long) > len(short) > 0


def test_convention_of_a_seed(schedule: ModuleType) -> None:
    """A seed that was written down is worth something as long as it gives the same faults."""
    first = [
        "training's controller killed",
        "training worker killed",
        "5% of the requests spoiled for 7 s",
        "worker killed",
    ]
    assert [str(strike) for strike in schedule.plan_strikes(1, seconds=120)][:4] == first


@pytest.mark.parametrize("seed", range(10))
def test_the_run_can_get_on_between_faults(schedule: ModuleType, seed: int) -> None:
    strikes = schedule.plan_strikes(seed, seconds=360)
    begins = [sum(each.calm + each.seconds for each in strikes[:n]) + strike.calm for n, strike in enumerate(strikes)]
    assert max(begins) <= 360
    assert min(strike.calm for strike in strikes) >= schedule.CALM[0]
    for before, after in pairwise(strikes):
        assert after.calm >= schedule.CALM[0] + schedule.RECOVERY.get(before.kind, 0)
    for strike in strikes:
        low, high = schedule.SECONDS.get(strike.kind, (0, 0))
        assert low <= strike.seconds <= high
        assert schedule.RATES[0] <= strike.rate <= schedule.RATES[1]
        assert 0 <= strike.pick < 1


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_comes_before_one_comes_again(schedule: ModuleType, seed: int) -> None:
    kinds = [strike.kind for strike in schedule.plan_strikes(seed, seconds=3600)]
    number = len(schedule.Kind)
    for start in range(0, len(kinds) - number, number):
        assert set(kinds[start : start + number]) == set(schedule.Kind)


def test_no_time_is_refused(schedule: ModuleType) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds, got 0"):
        schedule.plan_strikes(1, seconds=0)


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("ray::MapWorker(MapBatches(DecodeImages + Walk))", {"WORKER", "STOPPED"}),
        ("ray::MapBatches(FinishMasks)", {"WORKER", "STOPPED"}),
        ("ray::RayTrainWorker", {"WORKER", "STOPPED", "TRAINER"}),
        ("ray::_call", {"WORKER", "STOPPED"}),
        ("ray::Watch", {"WATCH"}),
        ("ray::TrainController.run", {"CONTROLLER"}),
        ("ray::IDLE", set()),
        ("ray::_StatsActor", set()),
        ("ray::DashboardAgent", set()),
        ("python jobs/submit.py", set()),
    ],
)
def test_which_processes_a_fault_hits(disorder: ModuleType, title: str, kinds: set[str]) -> None:
    of_processes = ("WORKER", "TRAINER", "CONTROLLER", "STOPPED", "WATCH")
    assert {name for name in of_processes if disorder.strikes.may_hit(disorder.schedule.Kind[name], title)} == kinds


def test_a_stopped_process_goes_on(disorder: ModuleType) -> None:
    code = "import time\nfor _ in range(2000): print(1, flush=True); time.sleep(0.05)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        found = psutil.Process(process.pid)
        stopping = threading.Thread(target=disorder.strikes.stop_for, args=(found, 1.0))
        stopping.start()
        seen = set()
        while stopping.is_alive():
            seen.add(found.status())
            time.sleep(0.05)
        assert psutil.STATUS_STOPPED in seen
        assert found.status() != psutil.STATUS_STOPPED
        process.kill()


def test_a_killed_command_is_given_again_and_one_that_ended_is_not(disorder: ModuleType) -> None:
    begin = partial(subprocess.Popen, [sys.executable, "-c", "import time; time.sleep(60)"])
    command = disorder.strikes.Command(begin, begin())
    first = command.driver
    assert command.kill()
    assert first.returncode < 0
    assert command.num_starts == 2
    assert not command.ends_within(0.2)
    command.driver.terminate()
    begin = partial(subprocess.Popen, [sys.executable, "-c", ""])
    command = disorder.strikes.Command(begin, begin())
    assert command.ends_within(60)
    assert not command.kill()
    assert command.num_starts == 1


def test_the_storage_goes_away_and_comes_back(disorder: ModuleType, s3_url: str) -> None:
    proxy = disorder.strikes.Proxy(s3_url)
    values = {"calm": 0.0, "seconds": 1.5, "pick": 0.0, "rate": 1.0, "seed": 0}
    strike = disorder.schedule.Strike(kind=disorder.schedule.Kind.AWAY, **values)
    striker = disorder.strikes.Striker(None, None, proxy)
    answers = set()

    def ask() -> None:
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=1):
                answers.add("there")
        except OSError:
            answers.add("away")

    proxy.start()
    striking = threading.Thread(target=striker.strike, args=(strike, None))
    striking.start()
    while striking.is_alive():
        ask()
        time.sleep(0.02)
    assert "away" in answers
    answers.clear()
    ask()
    assert answers == {"there"}
    proxy.stop()


def outcome(disorder: ModuleType, **values: Any) -> Any:
    usual = {
        "rows": {"masks": {"a": "1", "b": "2"}},
        "doubled": {"masks": set()},
        "quarantined": {"masks": {"c": "DecodeImages: ImageError"}},
        "weights": {"classifier": "0"},
    }
    return disorder.outcome.Outcome(**(usual | values))


def test_an_equal_run_differs_in_nothing(disorder: ModuleType) -> None:
    assert disorder.outcome.differences(outcome(disorder), outcome(disorder)) == []
    assert disorder.outcome.unaccounted(outcome(disorder), {"a", "b", "c"}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": {"masks": {"a": "1", "b": "3"}}}, "masks: other bytes: 1 (b)"),
        ({"weights": {"classifier": "9"}}, "the weights of the classifier are 9, undisturbed 0"),
        (
            {"rows": {"masks": {"a": "1"}}, "quarantined": {"masks": {"b": "ComputeCams: died", "c": "same"}}},
            "masks: in quarantine, first for 'ComputeCams: died': 1 (b)",
        ),
    ],
)
def test_differences_are_named(disorder: ModuleType, values: dict[str, Any], message: str) -> None:
    assert disorder.outcome.differences(outcome(disorder), outcome(disorder, **values)) == [message]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": {"masks": {"a": "1"}}}, "masks: neither finished nor in quarantine: 1 (b)"),
        ({"rows": {"masks": dict.fromkeys("abd", "1")}}, "masks: in no manifest: 1 (d)"),
        ({"rows": {"masks": dict.fromkeys("abc", "1")}}, "masks: finished and in quarantine: 1 (c)"),
        ({"doubled": {"masks": {"a"}}}, "masks: finished twice: 1 (a)"),
    ],
)
def test_accounts_that_do_not_add_up_are_named(disorder: ModuleType, values: dict[str, Any], message: str) -> None:
    assert disorder.outcome.unaccounted(outcome(disorder, **values), {"a", "b", "c"}) == [message]
