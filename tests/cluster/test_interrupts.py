import signal
from collections.abc import Iterator
from types import FrameType

import pytest
import ray
from ray._private import utils as of_ray

from raypipe.cluster import connect as module
from raypipe.cluster.connect import connect
from raypipe.cluster.interrupts import interrupts_wait, own_sigterm
from raypipe.config import Cluster

both = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def said() -> Iterator[list[str]]:
    """What is said of signals; both raise KeyboardInterrupt, as in the `raypipe` command.

    A shell starts what it runs in the background with SIGINT ignored.
    """
    lines: list[str] = []

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        lines.append("interrupted")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lines
    for number, handler in before.items():
        signal.signal(number, handler)


def take(said: list[str], *numbers: signal.Signals, error: Exception | None = None) -> None:
    """A block in which these signals come."""
    with interrupts_wait() as waits:
        assert not waits()
        for number in numbers:
            signal.raise_signal(number)
            assert waits()
        if error is not None:
            raise error
        said.append("all of it")


@both
def test_the_first_interrupt_is_said_at_once_and_waits_for_the_end(number: signal.Signals, said: list[str]) -> None:
    own = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        take(said, number)
    assert said == ["interrupted", "all of it"]
    assert signal.getsignal(number) is own


def test_a_line_says_at_once_that_an_interrupt_waits(said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="raypipe")
    with pytest.raises(KeyboardInterrupt):
        take(said, signal.SIGINT)
    assert caplog.messages == ["stopping, as soon as Ray has started or is down again"]


@both
def test_the_second_interrupt_does_not_wait(number: signal.Signals, said: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        take(said, signal.SIGINT, number)
    assert said == ["interrupted", "interrupted"]


@both
def test_a_block_that_fails_after_an_interrupt_was_interrupted(number: signal.Signals, said: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        take(said, number, error=TimeoutError("too slow"))
    with pytest.raises(TimeoutError):
        take(said, error=TimeoutError("too slow"))


def test_a_process_that_only_notes_a_signal_goes_on(said: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: said.append("noted"))
    with interrupts_wait() as waits:
        signal.raise_signal(signal.SIGTERM)
        assert not waits()
    assert said == ["noted"]


@both
@pytest.mark.parametrize("when", ["start", "pause"])
def test_a_start_that_was_interrupted_is_not_tried_again(
    number: signal.Signals, when: str, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def start(**_: object) -> None:
        said.append("start")
        if when == "start":
            signal.raise_signal(number)
        raise TimeoutError("too slow")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(module, "watch_head", lambda: None)
    monkeypatch.setattr("time.sleep", lambda _: signal.raise_signal(number))
    for name in ("RAY_API_SERVER_ADDRESS", "OMP_WAIT_POLICY", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"):
        monkeypatch.setenv(name, "")  # what `connect` sets goes again
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(KeyboardInterrupt):
        connect(Cluster())
    assert said == ["start", "interrupted"]


def test_ray_does_not_take_sigterm_from_a_process_that_has_a_use_for_it() -> None:
    def rays(*_: object) -> None:
        raise SystemExit(1)

    own, set_handler = signal.getsignal(signal.SIGTERM), of_ray.set_sigterm_handler
    for handler, after in ((own, own), (signal.SIG_DFL, rays)):
        signal.signal(signal.SIGTERM, handler)
        with own_sigterm():
            of_ray.set_sigterm_handler(rays)
        assert signal.getsignal(signal.SIGTERM) is after
        assert of_ray.set_sigterm_handler is set_handler
