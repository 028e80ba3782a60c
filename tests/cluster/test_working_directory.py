"""A folder that is deleted and written anew, as Ray does with a job's: tests/jobs submits a real one."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from raypipe.cluster import working_directory
from raypipe.cluster.working_directory import UNPACKED, replaced

FILES = ("__init__.py", "cli.py", "doctor/__init__.py", "doctor/preflight.py")


def write(package: Path, *, pause: float = 0.0) -> None:
    for name in FILES:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
        time.sleep(pause)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / UNPACKED / "_ray_pkg_0" / "raypipe"
    write(folder)
    monkeypatch.setattr(working_directory, "PACKAGE", folder)
    return folder


def test_a_folder_that_is_replaced_is_whole_afterwards(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package.parent)

    def replace() -> None:
        for _ in range(2):  # by two raylets
            time.sleep(0.2)  # Ray begins when it has answered
            shutil.rmtree(package.parent)
            time.sleep(0.1)
            write(package, pause=0.1)

    thread = threading.Thread(target=replace)
    with replaced():
        thread.start()
    found, is_over = [(package / name).exists() for name in FILES], not thread.is_alive()
    thread.join()
    assert is_over
    assert Path("raypipe").absolute() == package  # the process isn't in a folder that is gone
    assert all(found)


def test_a_folder_that_nobody_replaces_is_waited_for_no_longer_than_a_moment(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_directory, "QUIET_SECONDS", 0.1)
    started = time.monotonic()
    with replaced():
        pass
    assert 0.1 <= time.monotonic() - started < 5


def test_elsewhere_nothing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_directory, "PACKAGE", tmp_path / "clone" / "raypipe")
    monkeypatch.setattr(working_directory, "_files", lambda: pytest.fail("it looks"))
    with replaced():
        pass
