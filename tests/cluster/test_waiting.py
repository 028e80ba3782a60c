import logging
import signal
import threading
import time
from collections.abc import Callable

import pytest

from raypipe.cluster import waiting
from raypipe.cluster.waiting import NothingStarted, watch_start

Look = tuple[bool, int, str]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_POLL", 0.02)
    monkeypatch.setattr(waiting, "FIRST_WORD", 0.1)


def seen(monkeypatch: pytest.MonkeyPatch, look: Callable[[], Look]) -> None:
    monkeypatch.setattr(waiting, "_look", look)


def test_a_wait_in_which_nothing_runs_is_named_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen(monkeypatch, lambda: (False, 1, "free are 2 of 2 CPUs"))
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(
            NothingStarted, match=r"masks waits for 1 x 4 GPUs; nothing.*2 of 2 CPUs.*cluster\.start_timeout"
        ),
        watch_start("masks", "1 x 4 GPUs", timeout=0.3),
    ):
        threading.Event().wait(20)
    assert len(caplog.messages) == 1, "one line, well before the end"
    assert "masks waits for 1 x 4 GPUs" in caplog.text


def test_what_runs_or_joins_starts_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(10**6))

    def joining() -> Look:
        return False, next(looks) // 5, ""  # a node in every five looks

    seen(monkeypatch, joining)
    with watch_start("masks", "", timeout=0.3):
        time.sleep(1)
    seen(monkeypatch, lambda: (next(looks) % 5 == 0, 1, ""))
    with watch_start("masks", "", timeout=0.3):
        time.sleep(1)


def test_signals_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, lambda: (False, 1, ""))
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(NothingStarted), watch_start("masks", "", timeout=0.05):
        time.sleep(20)
    with watch_start("masks", "", timeout=60):
        pass
    assert signal.getsignal(signal.SIGUSR1) == before
    assert "watch_start" not in [thread.name for thread in threading.enumerate()]


def test_another_thread_is_told_but_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, lambda: (False, 1, ""))
    ends: list[str] = []

    def work() -> None:
        with watch_start("masks", "", timeout=0.05):
            time.sleep(0.5)
        ends.append("through")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ends == ["through"]


def test_an_actor_that_no_node_can_hold_is_not_waited_for_ever(local_ray: None) -> None:
    import ray

    @ray.remote(num_gpus=1)
    class Held:
        def ready(self) -> bool:
            return True

    with pytest.raises(NothingStarted, match=r"of \d+ CPUs, 0 of 0 GPUs on 1 nodes"), watch_start("m", "", timeout=0.5):
        ray.get(Held.remote().ready.remote())
