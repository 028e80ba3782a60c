"""From made-up facts to findings: memory that is enough, and memory that isn't."""

import pytest

from raypipe.cluster.machines import Machine, parse_machine
from raypipe.cluster.survey import Gpu, Node, View
from raypipe.doctor import memory_checks
from raypipe.doctor.forecast import PoolForecast, Sample, StreamForecast
from raypipe.doctor.stage_timing import PoolTime, StageTime

GIB = 2**30

TIME = PoolTime(
    stages=(StageTime(name="ComputeCams", seconds=0.1, cpu_seconds=0.1),),
    start_seconds=2,
    row_bytes=1e6,
    memory=GIB,
    gpu_memory=10 * GIB,
)
SAMPLE = Sample(
    num_images=16, quarantined={}, largest=(500, 375), image_bytes=1e5, random=[], times={}, output_bytes={}
)


def node(name: str = "10.0.0.1", **resources: float) -> Node:
    usual = {"CPU": 8.0, "memory": 16.0 * GIB, "object_store_memory": 8.0 * GIB}
    view = View(versions={}, out=[], unread={}, absent={}, cores=8)
    return Node(id=name, name=name, resources=usual | resources, view=view)


def machine(nodes: int = 1) -> Machine:
    return parse_machine(f"nodes={nodes},cpus=8,memory=16")


def stream(*, actors: int = 4, gpus: float = 0, in_flight: float = GIB) -> StreamForecast:
    return StreamForecast(
        name="masks",
        num_rows=100,
        pools=[PoolForecast(name="ComputeCams", actors=actors, cpus=1, gpus=gpus, time=TIME)],
        loads_maps=False,
        hours=1,
        start_seconds=1,
        bottleneck="ComputeCams",
        cpu_hours=1,
        gpu_hours=0,
        read_bytes=1,
        output_bytes=1,
        in_flight_bytes=in_flight,
    )


@pytest.mark.parametrize(("actors", "status"), [(12, "ok"), (15, "warning"), (17, "problem")])
def test_memory(actors: int, status: str) -> None:
    found = memory_checks.check_memory(SAMPLE, [stream(actors=actors)], [node()], machine(), max_side=512)
    assert found.status == status
    assert f"{actors}.0 GiB of 16.0 GiB" in found.found


def test_memory_is_shared_out_among_nodes() -> None:
    nodes = [node(), node("10.0.0.2")]
    found = memory_checks.check_memory(SAMPLE, [stream(actors=24)], nodes, machine(2), max_side=1024)
    assert found.status == "ok"
    assert "one of 1024 x 1024 would take up to 5.6 times as much" in found.found
    one_gpu = parse_machine("cpus=8,memory=16", "cpus=8,gpus=1,memory=16")
    nodes = [node(), node("10.0.0.2", GPU=1)]
    on_gpus = memory_checks.check_memory(SAMPLE, [stream(actors=24, gpus=0.1)], nodes, one_gpu, max_side=512)
    assert on_gpus.status == "problem"


def test_nodes_that_an_autoscaler_may_bring_take_their_share_of_the_actors() -> None:
    found = memory_checks.check_memory(SAMPLE, [stream(actors=40)], [node()], machine(4), max_side=512)
    assert found.status == "ok"
    assert "10.0 GiB of 16.0 GiB" in found.found


def test_gpu_memory() -> None:
    gpus: dict[str, Gpu | str] = {"10.0.0.1": Gpu(name="T4", memory=16 * GIB)}
    assert memory_checks.check_gpu_memory([stream(gpus=1)], gpus).status == "ok"
    found = memory_checks.check_gpu_memory([stream(gpus=0.5)], gpus)
    assert (found.status, found.found) == ("problem", "ComputeCams 10.0 GiB of 8.0 GiB")


def test_object_store() -> None:
    assert memory_checks.check_object_store([stream(in_flight=3 * GIB)], [node()]).status == "ok"
    assert memory_checks.check_object_store([stream(in_flight=5 * GIB)], [node()]).status == "warning"
