"""The lease on a folder, between real processes, on a disk and on an S3 server over the network."""

import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raypipe import storage
from raypipe.outputs import lease as module
from raypipe.outputs.lease import LEASE, FolderInUse, LeaseLost, find_holder, hold
from raypipe.processes import Process

BEAT, TAKEOVER = 0.2, 2.0
"""Of most tests: a tenth and less of what a run takes."""

HOLDER = """
import sys, time
from raypipe.outputs.lease import LeaseLost, hold

with hold(sys.argv[1], holder="the masks", beat=float(sys.argv[2]), takeover=float(sys.argv[3])) as lease:
    print(lease.epoch, flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("held", flush=True)
        except LeaseLost as error:
            print(error, flush=True)
"""
"""Holds a lease until its input ends; says its epoch, and for each line of its input whether it still holds it."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return str(tmp_path / "masks") if request.param == "disk" else f"{bucket}/masks"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that holds a folder's lease."""
    with ExitStack() as stack:

        def run(folder: str, *, beat: float = BEAT, takeover: float = TAKEOVER) -> "subprocess.Popen[str]":
            command = [sys.executable, "-c", HOLDER, folder, str(beat), str(takeover)]
            process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that other processes hold seems to be held on another machine."""
    monkeypatch.setattr(Process, "has_ended", lambda _self: False)


def take(folder: str, *, beat: float = BEAT, takeover: float = TAKEOVER) -> tuple[int, float]:
    """Epoch of a lease that is taken and released, and the seconds until it was there."""
    began = time.monotonic()
    with hold(folder, holder="a test", beat=beat, takeover=takeover) as lease:
        return lease.epoch, time.monotonic() - began


def say(process: "subprocess.Popen[str]") -> str:
    """A line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask(process: "subprocess.Popen[str]") -> str:
    """Whether a process still holds its lease."""
    assert process.stdin is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return say(process)


def is_lost(lease: module.Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return True
    return False


def wait_for(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def files(folder: str) -> list[str]:
    return [uri.rpartition("/")[2] for uri in storage.list_files(storage.join(folder, LEASE))]


def test_others_see_who_holds_it_and_that_nobody_does(folder: str) -> None:
    assert find_holder(folder) is None
    for epoch in (1, 2):
        with hold(folder, holder="a test", beat=BEAT, takeover=TAKEOVER):
            found = find_holder(folder)
            assert found is not None
            assert found.text.startswith("a test (process ")
            assert found.epoch == epoch
            assert abs((datetime.now(UTC) - found.started).total_seconds()) < 60
        assert find_holder(folder) is None


def test_each_holder_has_the_next_epoch_and_waits_for_nobody(folder: str) -> None:
    for epoch in (1, 2, 3):
        assert take(folder, takeover=60) == (epoch, pytest.approx(0, abs=2))
        assert files(folder) == [f"{epoch:08d}.json"]


def test_a_second_one_is_refused_once_the_first_is_seen_alive(
    folder: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    process = start(folder, takeover=60)
    assert say(process) == "1"
    began = time.monotonic()
    expected = rf"written to by the masks \(process {process.pid} on .*, since 20.*alive: wait .* stop it, or .* `out`"
    with pytest.raises(FolderInUse, match=expected):
        take(folder, takeover=60)
    assert time.monotonic() - began < 5
    (line,) = caplog.messages
    assert re.search(rf"held by the masks \(process {process.pid} .*this run waits; .* takes over after 60 s", line)
    assert ask(process) == "held"
    process.communicate(timeout=20)
    assert take(folder, takeover=60)[0] == 2


def test_a_lease_is_taken_at_once_from_a_process_that_has_ended(folder: str, start: Start) -> None:
    process = start(folder, takeover=60)
    assert say(process) == "1"
    process.kill()  # nobody has waited for it yet
    assert take(folder, takeover=60) == (2, pytest.approx(0, abs=3))


@pytest.mark.usefixtures("elsewhere")
def test_a_lease_is_taken_from_another_machine_that_is_silent_for_long_enough(folder: str, start: Start) -> None:
    process = start(folder)
    assert say(process) == "1"
    process.kill()
    process.wait()
    epoch, seconds = take(folder)
    assert epoch == 2
    assert TAKEOVER <= seconds < TAKEOVER + 3


def test_a_process_that_stood_still_has_lost_its_lease_for_good(folder: str, start: Start) -> None:
    process = start(folder)
    assert say(process) == "1"
    process.send_signal(signal.SIGSTOP)
    with hold(folder, holder="a test", beat=BEAT, takeover=TAKEOVER) as lease:
        process.send_signal(signal.SIGCONT)
        assert "was not renewed for" in ask(process)
        time.sleep(3 * BEAT)
        assert "start it again when the folder is free" in ask(process)
        lease.check()
        process.communicate(timeout=20)
        assert files(folder)[-1] == "00000002.json"
        lease.check()
    assert take(folder, takeover=60)[0] == 3


def test_who_was_taken_over_learns_of_it_by_the_next_heartbeat(folder: str) -> None:
    with hold(folder, holder="a test", beat=BEAT, takeover=60) as lease:
        assert module._take(folder, replace(lease._record, epoch=2, nonce="another", holder="the seeds"))
        wait_for(lambda: is_lost(lease))
        with pytest.raises(LeaseLost, match="was taken over by the seeds"):
            lease.check()
    assert files(folder)[-1] == "00000002.json"


def test_two_that_share_a_file_are_told_apart(folder: str) -> None:
    """On a store that ignores conditions, two may create the same file: the last one's bytes are there."""
    with hold(folder, holder="a test", beat=BEAT, takeover=60) as lease:
        other = module._encode(replace(lease._record, nonce="another", beat=0))
        storage.write_bytes_atomic(module._uri(folder, 1), other)
        wait_for(lambda: is_lost(lease))
    assert storage.read_bytes(module._uri(folder, 1)) == other


def test_of_many_that_come_together_one_gets_in(folder: str) -> None:
    take(folder)

    def attempt(_number: int) -> int:
        try:
            with hold(folder, holder="a test", beat=BEAT, takeover=60) as lease:
                time.sleep(1.5)
                lease.check()
                return lease.epoch
        except FolderInUse:
            return 0

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(attempt, range(6))) == [0, 0, 0, 0, 0, 2]


def test_who_stood_still_while_two_others_came_and_went_gets_no_old_epoch(folder: str) -> None:
    with hold(folder, holder="a test", beat=BEAT, takeover=60) as lease:
        late = replace(lease._record, epoch=2, nonce="late")
    assert [take(folder)[0] for _ in range(2)] == [2, 3]
    assert not module._take(folder, late)
    assert files(folder) == ["00000003.json"]


def test_a_holder_without_storage_stops_before_another_one_may_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uri: str, data: bytes) -> None:
        raise OSError("storage is away")

    began = time.monotonic()
    with hold(str(tmp_path), holder="a test", beat=BEAT, takeover=TAKEOVER) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write_bytes_atomic", fail)
            time.sleep(TAKEOVER / 4)
            lease.check()
        wait_for(lambda: lease._record.beat > 0)  # a short outage does no harm
        with monkeypatch.context() as patch:
            patch.setattr(storage, "write_bytes_atomic", fail)
            last = lease._renewed
            wait_for(lambda: is_lost(lease))
            assert TAKEOVER / 2 < module._clock() - last < TAKEOVER * 0.9
        time.sleep(3 * BEAT)
        with pytest.raises(LeaseLost, match="storage was away"):
            lease.check()
    assert time.monotonic() - began < 10
    outages = [message for message in caplog.messages if "could not be renewed, which is tried again" in message]
    assert len(outages) == 2


def test_a_renewal_that_comes_too_late_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage is away for half of the time, and the first write after that takes longer than the rest of it."""
    write, began, written = storage.write_bytes_atomic, time.monotonic(), threading.Event()

    def answer_late(uri: str, data: bytes) -> None:
        if time.monotonic() - began < TAKEOVER / 2:
            raise OSError("storage is away")
        if not written.is_set():
            time.sleep(TAKEOVER / 2)
        write(uri, data)
        written.set()

    monkeypatch.setattr(storage, "write_bytes_atomic", answer_late)
    with hold(str(tmp_path), holder="a test", beat=BEAT, takeover=TAKEOVER) as lease:
        assert written.wait(10)
        time.sleep(2 * BEAT)
        assert is_lost(lease)


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    with hold(str(tmp_path / "masks"), holder="a test", beat=BEAT, takeover=60) as lease:
        for path in (tmp_path / "masks" / LEASE).iterdir():
            path.unlink()
        (tmp_path / "masks" / LEASE).rmdir()
        wait_for(lambda: is_lost(lease))
        with pytest.raises(LeaseLost, match="was deleted"):
            lease.check()
    assert not (tmp_path / "masks" / LEASE).exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_releases_the_lease_and_ends_its_thread(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with hold(str(tmp_path), holder="a test", takeover=60):
            assert "lease" in [thread.name for thread in threading.enumerate()]
            raise error

    with pytest.raises(error):
        fail()
    assert "lease" not in [thread.name for thread in threading.enumerate()]
    assert take(str(tmp_path), takeover=60) == (2, pytest.approx(0, abs=1))


def test_storage_that_is_away_at_the_end_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uri: str, data: bytes) -> None:
        raise OSError("storage is away")

    monkeypatch.setattr(storage, "write_bytes_atomic", fail)
    with pytest.raises(RuntimeError, match="the run's own"), hold(str(tmp_path), holder="a test"):
        raise RuntimeError("the run's own")
    assert "can't be released, so that the next run waits" in caplog.text


def test_storage_that_hangs_keeps_no_run_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, asked = threading.Event(), threading.Event()

    def hang(uri: str, data: bytes) -> None:
        asked.set()
        answers.wait(30)

    with monkeypatch.context() as patch, hold(str(tmp_path), holder="a test", beat=BEAT):
        patch.setattr(storage, "write_bytes_atomic", hang)
        assert asked.wait(10)
    assert "storage doesn't answer" in caplog.text
    answers.set()


def test_a_lease_keeps_no_interpreter_alive(tmp_path: Path) -> None:
    code = (
        "import sys; from raypipe.outputs.lease import hold\n"
        "held = hold(sys.argv[1], holder='a test'); held.__enter__(); sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 3


def test_a_file_that_is_no_lease_is_named(tmp_path: Path) -> None:
    (tmp_path / LEASE).mkdir()
    (tmp_path / LEASE / "00000004.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"00000004.json is no lease .*: delete it once no run writes to"):
        take(str(tmp_path))


def test_other_file_systems(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = f"memory://{tmp_path}"
    assert [take(folder)[0] for _ in range(2)] == [1, 2]
    with hold(folder, holder="the masks", beat=BEAT), pytest.raises(FolderInUse):
        take(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_times_of_a_real_run(folder: str, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    process = start(folder, beat=module.BEAT, takeover=module.TAKEOVER)
    assert say(process) == "1"
    began = time.monotonic()
    with pytest.raises(FolderInUse):
        take(folder, beat=module.BEAT, takeover=module.TAKEOVER)
    refused = time.monotonic() - began
    process.kill()
    process.wait()
    epoch, seconds = take(folder, beat=module.BEAT, takeover=module.TAKEOVER)
    logging.getLogger(__name__).warning("refused after %.1f s, taken over after %.1f s", refused, seconds)
    assert refused < 10
    assert epoch == 2
    assert 60 <= seconds < 75
