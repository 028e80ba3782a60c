"""What actors reserve, by the shares of `reserves.py`: 0.4 of a node's CPUs for networks, 0.9 without other work."""

import pytest

from raypipe.cluster.machines import GIB, parse_machine
from raypipe.cluster.packing import Need
from raypipe.cluster.reserves import Kind, Reserves
from raypipe.config import Cluster

ALL: tuple[Kind, ...] = ("fetch", "device", "finish")
TWO_NETWORKS: tuple[Kind, ...] = ("fetch", "device", "finish", "device")
LONE: tuple[Kind, ...] = ("fetch", "device")
ONE_NODE = "cpus=64,gpus=8,memory=512"


def reserves(*nodes: str, kinds: tuple[Kind, ...] = ALL, on_gpus: bool = True, **cluster: float) -> Reserves:
    machine = parse_machine(*nodes)
    return Reserves(kinds=kinds, machine=machine, cluster=Cluster.model_validate(cluster), on_gpus=on_gpus)


def test_actors_without_networks_reserve_the_same_on_every_machine() -> None:
    both = reserves(ONE_NODE)
    assert both.need("fetch") == Need(cpus=0.05, memory=GIB // 2)
    assert both.need("finish") == Need(cpus=0.5, memory=GIB)
    assert reserves(ONE_NODE, kinds=("fetch", "finish")).need("finish").cpus == 0.9, "no network is beside them"


@pytest.mark.parametrize(
    ("nodes", "kinds", "cluster", "cpus", "gpus"),
    [
        # 0.4 · 64 CPUs / 8 actors = 3.2
        ([ONE_NODE], ALL, {}, 3, 1),
        # 0.9 · 64 / 8 = 7.2
        ([ONE_NODE], LONE, {}, 7, 1),
        # 0.4 · 64 / 16 = 1.6
        ([ONE_NODE], TWO_NETWORKS, {}, 1, 0.5),
        # 0.4 · 192 / 8 = 9.6, but 8 threads at most
        (["cpus=192,gpus=8,memory=512"], ALL, {}, 8, 1),
        # 0.4 · 8 / 8: less than a CPU is reserved as it is.
        (["cpus=8,gpus=8,memory=512"], ALL, {}, 0.4, 1),
        # 0.4 · 64 / 8 = 3.2 on one, 0.4 · 4 / 1 = 1.6 on the other; the one without GPUs has no actor.
        ([ONE_NODE, "cpus=4,gpus=1,memory=64", "cpus=1,memory=64"], ALL, {}, 1, 1),
        # 12 actors on 8 GPUs: two share one, and 0.4 · 64 / 12 = 2.1.
        ([ONE_NODE], ALL, {"network_actors": 12}, 2, 0.5),
        # 0.4 · 64 / 2 = 12.8
        ([ONE_NODE], ALL, {"network_actors": 2}, 8, 1),
        # 0.4 · 64 / (8 · 4) = 0.8
        ([ONE_NODE], ALL, {"gpus_per_actor": 0.25}, 0.8, 0.25),
        # 0.4 · 64 / (8 / 2) = 6.4
        ([ONE_NODE], ALL, {"gpus_per_actor": 2}, 6, 2),
    ],
)
def test_networks_on_gpus_share_out_the_cpus_beside_them(
    nodes: list[str], kinds: tuple[Kind, ...], cluster: dict[str, float], cpus: float, gpus: float
) -> None:
    need = reserves(*nodes, kinds=kinds, **cluster).need("device")
    assert (need.cpus, need.gpus, need.memory) == (cpus, gpus, 3 * GIB // 2)


def test_a_third_of_a_gpu_is_rounded_down_and_still_holds_three() -> None:
    three = reserves(ONE_NODE, kinds=("device", "device", "device"))
    assert three.need("device").gpus == 0.3333
    assert three.limit(three.machine.nodes[0], "device") == 24


@pytest.mark.parametrize(
    ("node", "kinds", "cluster", "cpus"),
    [
        ("cpus=16,memory=64", ALL, {}, 0.4),
        ("cpus=16,memory=64", LONE, {}, 0.9),
        # 0.4 · 16 / 2 = 3.2: more threads than one would change masks.
        ("cpus=16,memory=64", ALL, {"network_actors": 2}, 1),
        # Three pools on one CPU: 0.9 / 3.
        ("cpus=1,memory=64", ("device", "device", "device"), {}, 0.3),
        # 0.9 · 1.9 / 1 = 1.71: nobody asks for more than a thread.
        ("cpus=1.9,memory=64", LONE, {}, 1),
        # GPUs that aren't used don't matter.
        (ONE_NODE, ALL, {"gpus_per_actor": 0}, 0.4),
    ],
)
def test_networks_on_cpus_take_a_thread_however_few_there_are(
    node: str, kinds: tuple[Kind, ...], cluster: dict[str, float], cpus: float
) -> None:
    need = reserves(node, kinds=kinds, on_gpus=False, **cluster).need("device")
    assert (need.cpus, need.gpus) == (cpus, 0)


def test_a_node_without_a_whole_cpu_does_not_count() -> None:
    assert reserves("cpus=16,memory=64", "cpus=0.5,memory=64", on_gpus=False).need("device").cpus == 0.4


@pytest.mark.parametrize(
    ("node", "kind", "on_gpus", "limit"),
    [
        (ONE_NODE, "fetch", True, 16),
        ("cpus=15,memory=64", "fetch", False, 3),
        (ONE_NODE, "finish", True, 64),
        ("cpus=0.5,memory=64", "finish", False, 1),
        (ONE_NODE, "device", True, 8),
        (ONE_NODE, "device", False, 64),
    ],
)
def test_a_node_gets_so_many_actors_of_a_kind(node: str, kind: Kind, *, on_gpus: bool, limit: int) -> None:
    whole = reserves(node, on_gpus=on_gpus)
    assert whole.limit(whole.machine.nodes[0], kind) == limit


def test_a_node_without_gpus_gets_no_network_where_others_have_them() -> None:
    mixed = reserves(ONE_NODE, "cpus=64,memory=512")
    assert [mixed.limit(node, "device") for node in mixed.machine.nodes] == [8, 0]
