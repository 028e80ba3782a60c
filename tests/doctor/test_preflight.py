"""What keeps a run from being started: on a real Ray of one node, on one of three, and on made-up ones of several."""

import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from clusters import start_cluster

from raypipe import storage
from raypipe.cluster import preflight as cluster_preflight
from raypipe.cluster.survey import Node, View
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor import preflight as module
from raypipe.doctor.preflight import preflight, preflight_nodes
from raypipe.pipelines.context import Context

VERSIONS = {"python": "3.11.9", "ray": ray.__version__, "raypipe": "0.1.0", "torch": "2.14.0"}
VIEW = View(versions=VERSIONS, out=[], unread={}, absent={}, cores=8)
FITTING = "cluster.autoscaling=['nodes=2,cpus=8,memory=32']"


def make_context(out: Path, *overrides: str) -> Context:
    config = load_config("preset: demo", ["manifest=m.parquet", f"out={out}", *overrides])
    row = {"image_id": "a", "image_uri": "a.jpg", "labels": ["cat"], "split": "train"}
    return Context(config, Manifest.from_rows([row], ("cat", "dog")))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Of a made-up cluster: two that are well, which a test may change."""
    cluster = [
        Node(id=name, name=name, resources={"CPU": 8}, view=VIEW, beside_driver=name == "10.0.0.1")
        for name in ("10.0.0.1", "10.0.0.2")
    ]
    monkeypatch.setattr(module, "alive_nodes", lambda: cluster)
    monkeypatch.setattr(cluster_preflight, "survey", lambda **_: (VIEW, cluster))
    return cluster


@pytest.fixture(autouse=True)
def _data_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.doctor.first_look.look_at_data", lambda *_, **__: [])


def test_data_that_cannot_be_used(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for splits in ("null", "[val]"):
        with pytest.raises(
            ValueError, match=r"what the manifest names can't be used:\nfirst look at images: 1 of 1"
        ) as error:
            preflight(make_context(tmp_path, "splits={train: null, masks: null}", f"evaluation.splits={splits}"))
        assert ("set evaluation.splits" in str(error.value)) == (splits != "null")
    (tmp_path / "config.yaml").touch()
    preflight(
        make_context(tmp_path, "splits={train: null, masks: null}")
    )  # a run that has come to its end goes on, whatever was deleted meanwhile


def test_weights_that_are_not_there_are_no_reason_to_try_a_training(local_ray: None, tmp_path: Path) -> None:
    absent = make_context(tmp_path, f"network.weights={tmp_path}/absent.pth")
    with pytest.raises(
        ValueError, match=r"what the config names can't be used:\nnetworks: .*absent.pth: there is no such"
    ):
        preflight(absent)
    (tmp_path / "config.yaml").touch()
    preflight(absent)


def test_a_package_that_an_option_needs_is_missed_before_anything_starts(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_packages", lambda packages: [name for name in packages if name == "tifffile"])
    context = make_context(tmp_path, "images.bands=[1,2,3]")
    with pytest.raises(ValueError, match=r"isn't installed:\npackages: from this machine: tifffile not installed"):
        preflight(context)
    (tmp_path / "config.yaml").touch()
    preflight(context)


def test_weights_that_other_machines_may_have_alone_are_not_missed(nodes: list[Node], tmp_path: Path) -> None:
    preflight(make_context(tmp_path, FITTING, f"network.weights={tmp_path}/absent.pth"))
    with pytest.raises(ValueError, match=r"networks: memory://absent.pth: there is no such"):
        preflight(make_context(tmp_path, FITTING, "network.weights=memory://absent.pth"))


def test_storage_that_is_away_is_not_taken_for_weights_that_are_not_there(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = storage.exists

    def away(uri: str) -> bool:
        if uri.startswith("s3://"):
            raise ConnectionError("the store is away")
        return exists(uri)

    monkeypatch.setattr(storage, "exists", away)
    with pytest.raises(ConnectionError, match="the store is away"):
        preflight(make_context(tmp_path, "network.weights=s3://bucket/weights.pth"))


def test_one_node_is_not_asked(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any, **__: Any) -> None:
        raise AssertionError("one machine is shared with itself")

    monkeypatch.setattr(module, "look_at_nodes", ask)
    context = make_context(tmp_path / "out")
    preflight(context)  # imports
    started = time.perf_counter()
    preflight(context)
    assert time.perf_counter() - started < 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_on_one_node_too(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cluster\.gpus_per_actor=1 needs a node") as error:
        preflight(make_context(tmp_path, "cluster.gpus_per_actor=1"))
    assert "way out: leave cluster.gpus_per_actor null" in str(error.value)
    with pytest.raises(ValueError, match=r"refinement\.device=gpu needs GPUs") as error:
        preflight(make_context(tmp_path, "refinement.device=gpu", "cluster.gpus_per_actor=0"))
    assert "way out: leave refinement.device out" in str(error.value)


def test_nodes_that_are_alike(nodes: list[Node], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert preflight(make_context(tmp_path, FITTING)) == {}
    assert caplog.messages == []


def test_a_sick_node_is_named_and_left_out(nodes: list[Node], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes[1] = replace(nodes[1], clock_error=1200.0)
    reason = "the clock is 20 minutes ahead of the driver's"
    for look in (preflight, preflight_nodes):
        caplog.clear()
        assert look(make_context(tmp_path, FITTING)) == {"10.0.0.2": reason}
        assert caplog.messages == [
            f"clock: from 10.0.0.2: {reason}; the run leaves them out; "
            "a time service (NTP, chrony) on every node, and on the driver's"
        ]


def test_images_to_read_are_spread_over_the_first_part(tmp_path: Path) -> None:
    rows = [
        {"image_id": name, "image_uri": f"{name}.jpg", "labels": ["cat"], "split": "train"} for name in ("a", "b", "c")
    ]
    context = replace(make_context(tmp_path), manifest=Manifest.from_rows(rows, ("cat", "dog")))
    assert [Path(uri).name for uri in module._some_images(context)] == ["a.jpg", "c.jpg"]
    assert len(list(module._some_images(make_context(tmp_path)))) == 1


def test_all_problems_are_told_together(nodes: list[Node], tmp_path: Path) -> None:
    old = replace(VIEW, versions=VERSIONS | {"torch": "2.0.0"}, out=["can't be written to"])
    nodes[1] = replace(nodes[1], view=old)
    with pytest.raises(ValueError, match="the cluster can't hold this run") as error:
        preflight(make_context(tmp_path, FITTING, "cluster.train_workers=3"))
    text = str(error.value)
    assert "versions: torch from the driver, 10.0.0.1: 2.14.0; from 10.0.0.2: 2.0.0" in text
    assert f"out: {tmp_path} is a folder of the driver's machine, which 10.0.0.2 can't see" in text
    assert "training of the classifier: cluster.train_workers=3 needs a batch that it divides" in text
    assert text.count("way out: ") == text.count("needed: ") == 4  # two trainings don't fit


def test_a_node_where_raypipe_is_not_is_refused(nodes: list[Node], tmp_path: Path) -> None:
    text = "a task failed there: ModuleNotFoundError: No module named 'raypipe'"
    nodes[1] = replace(nodes[1], view=text, silence="failed")
    with pytest.raises(ValueError, match=r"nodes: from 10\.0\.0\.2: a task failed there"):
        preflight(make_context(tmp_path, FITTING))


def test_a_node_that_is_slow_to_answer_is_no_reason_to_refuse(
    nodes: list[Node], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes[1] = replace(nodes[1], view="it didn't answer", silence="late")
    preflight(make_context(tmp_path, FITTING))
    assert caplog.messages == [
        "nodes: 10.0.0.2 did not answer within 30 s and are not checked; `raypipe doctor` waits longer"
    ]


def test_idle_gpus_are_named(nodes: list[Node], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine = "cluster.autoscaling=['nodes=2,cpus=8,gpus=1,memory=32']"
    preflight(make_context(tmp_path, machine, "cluster.gpus_per_train_worker=0"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "of 2 GPUs stay idle: training of the classifier 2, training of the affinity 2" in caplog.messages[0]


def test_importing_it_takes_no_torch() -> None:
    command = "import sys, raypipe.doctor.preflight; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=120)


THREE_RAYLETS = """
import sys, time
from raypipe.config import load_config
from raypipe.doctor.preflight import preflight
from raypipe.pipelines.context import open_context
from raypipe.cluster.connect import connect

manifest, out = sys.argv[1:]
context = open_context(load_config("preset: demo", [f"manifest={manifest}", f"out={out}"]))
connect(context.config.cluster)
started = time.perf_counter()
try:
    preflight(context)
    print("may run")
except ValueError as error:
    print(error)
print(f"{time.perf_counter() - started:.1f} seconds")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_raylets_share_a_folder_but_not_what_a_process_has_in_memory(
    synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789" * 4)
    with start_cluster() as cluster:  # another process connects: this one may have a Ray already

        def run(out: str) -> str:
            command = [sys.executable, "-c", THREE_RAYLETS, synthetic[0], out]
            environment = os.environ | {"RAY_ADDRESS": cluster.address}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout

        run(str(tmp_path / "warm"))  # Ray starts its first workers
        shared, own = run(str(tmp_path / "out")), run("memory://run")
    assert "may run" in shared
    assert not (tmp_path / "out").exists()
    assert "out: no node is left: from " in own
    assert "it is another place than the driver's" in own
    for text in (shared, own):
        assert float(text.split()[-2]) < 15
