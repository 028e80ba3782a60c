import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray import cloudpickle

from raypipe import storage
from raypipe.cluster.survey import View, _answer, _clock_error, find_gpus, look, survey, versions

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_every_node_is_asked_and_nothing_is_left(local_ray: None, bucket: str, jpeg: bytes) -> None:
    image, absent = storage.join(bucket, "images/a.jpg"), storage.join(bucket, "images/absent.jpg")
    storage.write_bytes_atomic(image, jpeg)
    packages = ["raypipe", "no_such_package"]
    driver, nodes = survey(
        out=storage.join(bucket, "run"), image_uris=[image, absent], files=[image, absent], packages=packages
    )
    assert len(nodes) == 1
    for view in (driver, nodes[0].view):
        assert isinstance(view, View)
        assert view.out == []
        assert list(view.unread) == [absent]
        assert "FileNotFoundError" in view.unread[absent]
        assert view.absent == {absent: "there is no such file"}
        assert view.versions == driver.versions
        assert view.cores >= 1
        assert view.lacking == ("no_such_package",)
    assert isinstance(nodes[0].view, View)
    assert nodes[0].view.spill_room is not None
    assert driver.spill_room is None  # it holds no objects
    assert nodes[0].resources["CPU"] == 4
    assert nodes[0].works
    assert nodes[0].id == ray.get_runtime_context().get_node_id()
    assert nodes[0].beside_driver
    assert nodes[0].clock_error == 0.0
    assert nodes[0].silence is None
    assert storage.list_files(bucket) == [image]


@pytest.mark.parametrize(("free", "room"), [(50, 45), (12, 7), (5, 0), (1, 0)])
def test_a_disk_is_never_spilled_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, room: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, used=100 - free, free=free))
    view = look(out=str(tmp_path), beacon=None, image_uris=[], files=[], spill_folder="/anywhere")
    assert view.spill_room == pytest.approx(room)


def test_a_folder_that_only_looks_the_same_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other" / "probe"
    for beacon, reason in (("/elsewhere/.doctor/probe", "there is no such file"), (str(other), "something else")):
        other.parent.mkdir(exist_ok=True)
        other.write_text("not its name")
        view = look(out=str(tmp_path), beacon=beacon, image_uris=[], files=[])
        assert len(view.out) == 1
        assert "another place than the driver's" in view.out[0]
        assert reason in view.out[0]


def test_a_node_that_cannot_run_tasks_is_told(local_ray: None) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'raypipe'")

    found = _answer(ray.remote(max_retries=0)(broken).remote(), time.monotonic() + 60)
    assert found == ("a task failed there: ModuleNotFoundError: No module named 'raypipe'", "failed")


def test_a_process_that_dies_is_told_apart(local_ray: None) -> None:
    def die() -> None:
        os._exit(1)

    text, silence = _answer(ray.remote(max_retries=0)(die).remote(), time.monotonic() + 60)
    assert silence == "died"
    assert text.startswith("no task could run there: ")


def test_a_clock_is_wrong_by_no_more_than_is_known() -> None:
    assert _clock_error(1003.0, asked=1000.0, told=1005.0) == 0
    assert _clock_error(1305.0, asked=1000.0, told=1005.0) == 300
    assert _clock_error(400.0, asked=1000.0, told=1005.0) == -600


def test_versions_are_those_of_the_files() -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(platform.python_version_tuple()[:2])
    command = "import sys, raypipe.cluster.survey as s; s.versions(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)


def test_a_node_that_does_not_answer_in_time_is_told(local_ray: None, tmp_path: Path) -> None:
    _, nodes = survey(out=str(tmp_path), seconds=0)
    assert [node.silence for node in nodes] == ["late"]
    assert nodes[0].view == "it didn't answer within 0 s: it is busy or hangs"


def test_no_gpus_no_answers(local_ray: None) -> None:
    assert find_gpus() == {}
