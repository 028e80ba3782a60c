"""A driver without a head, as far as a socket can stand for one; `tests/hosts` kills a real one."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from raypipe.cluster.head import _follow

POLL = 0.05
PATIENCE = 0.6


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", port)) as server:
        yield int(server.getsockname()[1])


def follow(port: int, connected: threading.Event, *, host: str = "127.0.0.1") -> list[str]:
    told: list[str] = []
    _follow(f"{host}:{port}", connected.is_set, patience=PATIENCE, poll=POLL, end=told.append)
    return told


@pytest.fixture
def connected() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_head_that_is_gone_ends_the_driver_with_the_cause_and_the_way_out(
    connected: threading.Event, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as port:
        pass
    began = time.monotonic()
    (reason,) = follow(port, connected, host=host)
    assert PATIENCE <= time.monotonic() - began < 5
    assert f"{host}:{port}" in reason
    assert "has not answered" in reason
    assert "give the same command" in reason
    assert len(caplog.records) == 1, "one warning before"


def test_a_head_that_answers_ends_nothing(connected: threading.Event) -> None:
    with listening() as port, ThreadPoolExecutor(1) as thread:
        found = thread.submit(follow, port, connected)
        time.sleep(3 * PATIENCE)
        assert not found.done()
        connected.clear()
        assert found.result(timeout=5) == []


def test_a_head_that_comes_back_in_time_is_worked_with(connected: threading.Event) -> None:
    with listening() as port:
        pass
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(follow, port, connected)
        time.sleep(PATIENCE / 2)
        with listening(port):
            time.sleep(PATIENCE)
            assert not found.done()
        time.sleep(PATIENCE / 2)
        assert not found.done(), "it counts anew"
        assert len(found.result(timeout=5)) == 1


def test_who_has_left_the_cluster_waits_for_nobody(connected: threading.Event) -> None:
    with listening() as port:
        pass
    connected.clear()
    assert follow(port, connected) == []
