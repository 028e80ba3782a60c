import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import cloudpickle

from raypipe import storage
from raypipe.doctor.survey import View, _answer, find_gpus, look, probing, survey

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_every_node_is_asked_and_nothing_is_left(local_ray: None, bucket: str, jpeg: bytes) -> None:
    image, absent = storage.join(bucket, "images/a.jpg"), storage.join(bucket, "images/absent.jpg")
    storage.write_bytes_atomic(image, jpeg)
    driver, nodes = survey(out=storage.join(bucket, "run"), image_uris=[image, absent], files=[image, absent])
    assert len(nodes) == 1
    for view in (driver, nodes[0].view):
        assert isinstance(view, View)
        assert view.out == []
        assert list(view.unread) == [absent]
        assert "FileNotFoundError" in view.unread[absent]
        assert view.absent == {absent: "there is no such file"}
        assert view.versions == driver.versions
        assert view.cores >= 1
    assert isinstance(nodes[0].view, View)
    assert nodes[0].view.spill_room is not None
    assert driver.spill_room is None  # it holds no objects
    assert nodes[0].resources["CPU"] == 4
    assert storage.list_files(bucket) == [image]


def test_a_bucket_that_is_not_there_is_told() -> None:
    with probing("s3://no-such-bucket-of-ours/run") as (_, problems):
        pass
    assert len(problems) == 1
    assert problems[0].startswith("can't be written to: ")


def test_what_opens_nothing_is_told() -> None:
    with probing("nosuchscheme://run") as (_, problems):
        pass
    assert "can't be opened" in problems[0]


def test_new_folders_are_gone_and_old_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for out in ("old/new/run", "old"):
        with probing(str(tmp_path / out)) as (uri, problems):
            assert Path(uri).exists()
            with probing(str(tmp_path / out)):  # another machine's
                pass
            assert Path(uri).exists()
        assert problems == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_a_probe_that_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(storage, "delete", refuse)
    with probing(str(tmp_path)) as (uri, problems):
        pass
    assert problems == [f"{uri} can't be deleted: PermissionError: Access Denied"]


@pytest.mark.parametrize(("free", "room"), [(50, 45), (12, 7), (5, 0), (1, 0)])
def test_a_disk_is_never_spilled_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, room: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, used=100 - free, free=free))
    view = look(out=str(tmp_path), beacon=None, image_uris=[], files=[], spill_folder="/anywhere")
    assert view.spill_room == pytest.approx(room)


def test_a_folder_that_only_looks_the_same_is_told(tmp_path: Path) -> None:
    view = look(out=str(tmp_path), beacon="/elsewhere/.doctor/probe", image_uris=[], files=[])
    assert len(view.out) == 1
    assert "another place than the driver's" in view.out[0]


def test_a_node_that_cannot_run_tasks_is_told(local_ray: None) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'raypipe'")

    found = _answer(ray.remote(max_retries=0)(broken).remote(), time.monotonic() + 60)
    assert found == "a task failed there: ModuleNotFoundError: No module named 'raypipe'"


def test_a_node_that_does_not_answer_in_time_is_told(local_ray: None, tmp_path: Path) -> None:
    _, nodes = survey(out=str(tmp_path), seconds=0)
    assert [node.late for node in nodes] == [True]
    assert nodes[0].view == "it didn't answer within 0 s: it is busy or hangs"


def test_no_gpus_no_answers(local_ray: None) -> None:
    assert find_gpus() == {}
