"""From made-up facts to findings: each check with a cluster that is well and one that isn't."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from raypipe.config import Cluster
from raypipe.doctor import cluster_checks
from raypipe.doctor.forecast import Sample, StageForecast, StreamForecast
from raypipe.doctor.stage_timing import StageTime
from raypipe.doctor.survey import Gpu, Node, View
from raypipe.stages.base import Row, Stage
from raypipe.streams.plan import Step

GIB = 2**30
VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "raypipe": "0.1.0", "torch": "2.14.0"}


def view(**changes: Any) -> View:
    return replace(
        View(versions=VERSIONS, out=[], unread={}, absent={}, cores=8, disk=(100 * GIB, 50 * GIB)), **changes
    )


def node(name: str = "10.0.0.1", *, seen: View | str | None = None, **resources: float) -> Node:
    usual = {"CPU": 8.0, "memory": 16.0 * GIB, "object_store_memory": 8.0 * GIB}
    return Node(name=name, resources=usual | resources, view=seen or view())


class Dummy(Stage):
    reads = ("image_id",)
    writes = pa.schema([])

    def process(self, row: Row) -> Row:
        return row


TIME = StageTime(seconds=0.1, cpu_seconds=0.1, start_seconds=2, row_bytes=1e6, memory=GIB, gpu_memory=10 * GIB)
SAMPLE = Sample(
    num_images=16, quarantined={}, largest=(500, 375), image_bytes=1e5, random=[], times={}, output_bytes={}
)


def stream(*, actors: int = 4, num_gpus: float = 0, in_flight: float = GIB) -> StreamForecast:
    return StreamForecast(
        name="masks",
        num_rows=100,
        stages=[StageForecast(name="Dummy", actors=actors, time=TIME, num_gpus=num_gpus)],
        hours=1,
        start_seconds=1,
        bottleneck="Dummy",
        cpu_hours=1,
        gpu_hours=0,
        read_bytes=1,
        output_bytes=1,
        in_flight_bytes=in_flight,
    )


def test_nodes() -> None:
    assert cluster_checks.check_nodes([node(), node("10.0.0.2", GPU=2)]).found == "2 answer; 16 CPUs, 2 GPUs"
    found = cluster_checks.check_nodes([node(), node("10.0.0.2", seen="it didn't answer")])
    assert (found.status, found.found) == ("problem", "from 10.0.0.2: it didn't answer")


def test_versions() -> None:
    assert cluster_checks.check_versions({"the driver": view(), "10.0.0.1": view()}).status == "ok"
    found = cluster_checks.check_versions({"the driver": view(), "10.0.0.1": view(versions=VERSIONS | {"ray": "2.70"})})
    assert found.status == "problem"
    assert found.found == "ray from the driver: 2.60.0; from 10.0.0.1: 2.70"
    old = cluster_checks.check_versions({"the driver": view(versions=VERSIONS | {"ray": "2.9.0"})})
    assert old.status == "problem"
    assert ">=2.60" in old.needed


@pytest.mark.parametrize(
    ("wanted", "autoscaling", "status"),
    [(8, False, "ok"), (9, False, "problem"), (9, True, "warning")],
)
def test_cpus(wanted: float, autoscaling: bool, status: str) -> None:
    found = cluster_checks.check_resources("CPU", {"seeds": 3, "masks": wanted}, [node()], autoscaling=autoscaling)
    assert found.status == status
    assert f"seeds 3, masks {wanted}" in found.found + found.needed


def test_gpus_that_nobody_uses_are_worth_a_warning() -> None:
    assert cluster_checks.check_resources("GPU", {"masks": 0}, [node()], autoscaling=False).status == "ok"
    found = cluster_checks.check_resources("GPU", {"masks": 0}, [node(GPU=1)], autoscaling=False)
    assert found.status == "warning"
    assert cluster_checks.check_resources("GPU", {"masks": 2}, [node(GPU=1)], autoscaling=False).status == "problem"


def test_training_has_loaders_beside_its_workers() -> None:
    cluster = Cluster(train_workers=2, gpus_per_train_worker=0.5)
    assert cluster_checks.training_needs(cluster, threads=4) == {"CPU": 14, "GPU": 1}


def test_an_actor_needs_room_on_one_node() -> None:
    nodes = [node(), node("10.0.0.2")]
    fitting = {"masks": [Step(stage=Dummy, num_cpus=8)]}
    assert cluster_checks.check_actors_fit(fitting, nodes, autoscaling=False).status == "ok"
    wide = {"masks": [Step(stage=Dummy, num_cpus=12)]}
    found = cluster_checks.check_actors_fit(wide, nodes, autoscaling=False)
    assert found.status == "problem"
    assert "Dummy (12 CPUs, 0 GPUs)" in found.found


def test_cuda() -> None:
    gpu = Gpu(name="H100", memory=80 * GIB)
    assert cluster_checks.check_cuda({"10.0.0.1": gpu}).found == "H100, 80.0 GiB"
    found = cluster_checks.check_cuda({"10.0.0.1": gpu, "10.0.0.2": "torch 2.14.0+cpu sees no GPU there"})
    assert (found.status, found.found) == ("problem", "from 10.0.0.2: torch 2.14.0+cpu sees no GPU there")


@pytest.mark.parametrize(("free", "status"), [(50, "ok"), (12, "warning"), (5, "warning")])
def test_disk(free: int, status: str) -> None:
    nodes = [node(), node("10.0.0.2", seen=view(disk=(100 * GIB, free * GIB)))]
    assert cluster_checks.check_disk(nodes).status == status


@pytest.mark.parametrize(
    ("address", "mode", "status"),
    [
        ("10.0.0.1:6379", "token", "ok"),
        ("127.0.0.1:6379", None, "ok"),
        ("10.0.0.1:6379", "disabled", "warning"),
        ("10.0.0.1:6379", None, "warning"),
    ],
)
def test_token(address: str, mode: str | None, status: str) -> None:
    assert cluster_checks.check_authentication(address, mode).status == status


@pytest.mark.parametrize(("actors", "status"), [(12, "ok"), (15, "warning"), (17, "problem")])
def test_memory(actors: int, status: str) -> None:
    found = cluster_checks.check_memory(SAMPLE, [stream(actors=actors)], [node()], max_side=512)
    assert found.status == status
    assert f"{actors}.0 GiB of 16.0 GiB" in found.found


def test_memory_is_shared_out_among_nodes() -> None:
    nodes = [node(), node("10.0.0.2")]
    found = cluster_checks.check_memory(SAMPLE, [stream(actors=24)], nodes, max_side=1024)
    assert found.status == "ok"
    assert "one of 1024 x 1024 would take up to 5.6 times as much" in found.found
    on_gpus = cluster_checks.check_memory(
        SAMPLE, [stream(actors=24, num_gpus=0.1)], [node(), node("10.0.0.2", GPU=1)], max_side=512
    )
    assert on_gpus.status == "problem"


def test_gpu_memory() -> None:
    gpus: dict[str, Gpu | str] = {"10.0.0.1": Gpu(name="T4", memory=16 * GIB)}
    assert cluster_checks.check_gpu_memory([stream(num_gpus=1)], gpus).status == "ok"
    found = cluster_checks.check_gpu_memory([stream(num_gpus=0.5)], gpus)
    assert (found.status, found.found) == ("problem", "Dummy 10.0 GiB of 8.0 GiB")


def test_object_store() -> None:
    assert cluster_checks.check_object_store([stream(in_flight=3 * GIB)], [node()]).status == "ok"
    assert cluster_checks.check_object_store([stream(in_flight=5 * GIB)], [node()]).status == "warning"
