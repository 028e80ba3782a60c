from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from placement import Nodes

from raypipe.cluster.machines import GIB, Machine, NodeType, parse_machine
from raypipe.cluster.resources import DoesNotFit, Kind, PoolNeed, PoolPlan, StreamPlan, plan_stream
from raypipe.config import Cluster

SHAPES: list[tuple[Kind, ...]] = [
    ("fetch", "device", "finish"),
    ("fetch", "finish"),
    ("fetch", "device"),
    ("fetch", "device", "finish", "device"),
]
DEFAULT = Cluster()


def plan(kinds: Sequence[Kind], machine: Machine, cluster: Cluster = DEFAULT) -> StreamPlan:
    pools = [PoolNeed(name=f"{kind}{index}", kind=kind) for index, kind in enumerate(kinds)]
    return plan_stream("masks", pools, machine, cluster)


def simulate(planned: StreamPlan, machine: Machine) -> Nodes:
    """Starts all actors that there can be, in the order in which Ray gets to them; fails where one has no room."""
    nodes = Nodes(machine)
    order = sorted(planned.pools, key=lambda pool: ["device", "finish", "fetch"].index(pool.kind))
    for pool in order:
        nodes.place(1, pool.cpus, pool.gpus, pool.memory or 0)
    for pool in order:
        nodes.place(pool.max_actors - 1, pool.cpus, pool.gpus, pool.memory or 0)
    nodes.place(planned.write_tasks, planned.write_cpus, 0, 0)
    return nodes


def of_kind(planned: StreamPlan, kind: Kind) -> list[PoolPlan]:
    return [pool for pool in planned.pools if pool.kind == kind]


@pytest.mark.parametrize("kinds", SHAPES, ids="+".join)
@pytest.mark.parametrize("gpus", [0, 1, 4, 8])
@pytest.mark.parametrize(("nodes", "cpus"), [*product([1, 3, 16], [4, 8, 16, 64, 192]), (1, 1), (1, 2), (1, 3)])
def test_every_machine_is_used_well(nodes: int, cpus: int, gpus: int, kinds: tuple[Kind, ...]) -> None:
    machine = parse_machine(f"nodes={nodes},cpus={cpus},gpus={gpus},memory={4 * cpus + 32 * gpus + 4}")
    planned = plan(kinds, machine)
    idle_gpus = simulate(planned, machine).idle_gpus
    assert [pool.kind for pool in planned.pools] == list(kinds)
    for pool in planned.pools:
        assert 1 <= pool.min_actors <= pool.max_actors
        assert 1 <= pool.threads <= max(1, pool.cpus)
    if "device" in kinds:
        assert idle_gpus == planned.idle_gpus == 0
        assert len({pool.max_actors for pool in of_kind(planned, "device")}) == 1 or not gpus
    if "device" in kinds and gpus:
        assert all(pool.min_actors == nodes * gpus for pool in of_kind(planned, "device"))
    for pool in of_kind(planned, "finish"):
        assert pool.max_actors * pool.threads >= 0.8 * nodes * cpus
        assert pool.min_actors == 1
    if "finish" not in kinds and not gpus:
        assert sum(pool.max_actors * pool.threads for pool in of_kind(planned, "device")) >= 0.8 * nodes * cpus
    assert not planned.notes


def test_pools_of_networks_share_each_gpu() -> None:
    planned = plan(SHAPES[3], parse_machine("nodes=4,cpus=64,gpus=8,memory=512"))
    assert [(pool.gpus, pool.min_actors, pool.max_actors) for pool in of_kind(planned, "device")] == [(0.5, 32, 32)] * 2


def test_networks_decode_in_the_cpus_that_finishing_leaves() -> None:
    machine = parse_machine("cpus=192,gpus=8,memory=1024")
    (device,) = of_kind(plan(SHAPES[0], machine), "device")
    assert (device.threads, device.cpus) == (8, 8)
    (device,) = of_kind(plan(SHAPES[0], parse_machine("cpus=64,gpus=8,memory=512")), "device")
    assert device.threads == 3
    (device,) = of_kind(plan(SHAPES[2], parse_machine("cpus=64,gpus=8,memory=512")), "device")
    assert device.threads == 7


def test_without_gpus_networks_take_a_thread_each() -> None:
    planned = plan(SHAPES[0], parse_machine("cpus=16,memory=64"))
    (device,), (finish,) = of_kind(planned, "device"), of_kind(planned, "finish")
    assert (device.min_actors, device.max_actors, device.threads, device.gpus) == (1, 16, 1, 0)
    assert (finish.min_actors, finish.max_actors) == (1, 16)


@pytest.mark.parametrize(
    "types",
    [
        ["nodes=2,cpus=8,gpus=4,memory=256", "nodes=4,cpus=64,memory=256"],
        # GPU nodes with hardly a CPU, and CPU nodes beside them.
        ["nodes=2,cpus=1,gpus=8,memory=256", "nodes=1,cpus=96,memory=384"],
        ["cpus=96,gpus=8,memory=1000", "nodes=3,cpus=4,gpus=1,memory=64", "cpus=0,memory=8"],
        ["cpus=0,gpus=4,memory=256", "nodes=2,cpus=32,memory=128"],
    ],
)
@pytest.mark.parametrize("kinds", SHAPES, ids="+".join)
def test_nodes_that_differ(types: list[str], kinds: tuple[Kind, ...]) -> None:
    machine = parse_machine(*types)
    planned = plan(kinds, machine)
    assert simulate(planned, machine).idle_gpus == planned.idle_gpus
    if "device" in kinds:
        assert planned.idle_gpus == 0
    for pool in of_kind(planned, "finish"):
        assert pool.max_actors >= 0.8 * machine.cpus


def test_with_an_autoscaler_pools_are_ranges() -> None:
    machine = parse_machine("nodes=1-8,cpus=64,gpus=8,memory=512", "cpus=4,memory=16")
    planned = plan(SHAPES[0], machine)
    simulate(planned, machine)
    fetch, device, finish = planned.pools
    assert (device.min_actors, device.max_actors) == (8, 64)
    assert (finish.min_actors, finish.max_actors) == (1, 516)
    assert fetch.min_actors == 1


def test_an_autoscaler_brings_the_first_node() -> None:
    machine = parse_machine("nodes=0-2,cpus=16,gpus=4,memory=128")
    device = plan(SHAPES[0], machine).pools[1]
    assert (device.min_actors, device.max_actors) == (1, 8)


def test_memory_limits_the_actors() -> None:
    machine = parse_machine("cpus=64,memory=64")
    planned = plan(SHAPES[0], machine)
    simulate(planned, machine)
    used = sum(pool.max_actors * (pool.memory or 0) for pool in planned.pools)
    assert 0.9 * machine.nodes[0].memory < used <= machine.nodes[0].memory
    (finish,) = of_kind(planned, "finish")
    assert f"memory holds {finish.max_actors} of the 64 finishing actors" in planned.notes[0]


def test_a_machine_with_little_memory_runs_one_actor_of_each_pool() -> None:
    planned = plan(SHAPES[0], Machine((NodeType(cpus=16, gpus=0, memory=2 * GIB, minimum=1, maximum=1),)))
    assert [(pool.max_actors, pool.memory) for pool in planned.pools] == [(1, None)] * 3
    assert "no pool grows" in planned.notes[0]
    assert "3 GiB" in planned.notes[0]


def test_what_the_user_sets_wins() -> None:
    machine = parse_machine("nodes=2,cpus=16,gpus=4,memory=128")
    planned = plan(SHAPES[3], machine, Cluster(network_actors=4, gpus_per_actor=1, cpu_actors=3))
    simulate(planned, machine)
    for pool in planned.pools:
        number = 4 if pool.kind == "device" else 3
        assert (pool.min_actors, pool.max_actors) == (number, number)
    assert {pool.gpus for pool in of_kind(planned, "device")} == {1}
    assert planned.idle_gpus == 0


def test_a_part_of_a_gpu_that_the_user_sets_fills_the_gpus() -> None:
    machine = parse_machine("cpus=16,gpus=4,memory=128")
    device = plan(SHAPES[0], machine, Cluster(gpus_per_actor=0.25)).pools[1]
    assert (device.gpus, device.max_actors) == (0.25, 16)
    device = plan(SHAPES[0], machine, Cluster(gpus_per_actor=2)).pools[1]
    assert (device.gpus, device.max_actors) == (2, 2)


def test_actors_that_the_user_counts_share_gpus() -> None:
    machine = parse_machine("cpus=16,gpus=4,memory=128")
    device = plan(SHAPES[0], machine, Cluster(network_actors=8)).pools[1]
    assert (device.gpus, device.max_actors) == (0.5, 8)
    planned = plan(SHAPES[0], machine, Cluster(network_actors=3))
    assert planned.pools[1].gpus == 1
    assert planned.idle_gpus == 1
    assert planned.notes == ("GPUs that stay idle: 1, as cluster.network_actors is 3",)


@pytest.mark.parametrize("kinds", SHAPES, ids="+".join)
@pytest.mark.parametrize("number", [None, 1, 2])
@pytest.mark.parametrize("cpus", [1, 2, 3, 16, 64])
def test_networks_on_cpus_have_one_thread_on_any_machine(
    cpus: int, number: int | None, kinds: tuple[Kind, ...]
) -> None:
    machine = parse_machine(f"cpus={cpus},memory={4 * cpus + 8}")
    if number == 2 and (cpus == 1 or kinds.count("device") > 1):
        pytest.skip("no room for two networks of each pool")
    planned = plan(kinds, machine, Cluster(network_actors=number))
    assert all(pool.threads == 1 and pool.cpus <= 1 for pool in of_kind(planned, "device"))


def test_gpus_that_the_user_leaves_are_named() -> None:
    machine = parse_machine("cpus=16,gpus=4,memory=128")
    planned = plan(SHAPES[0], machine, Cluster(gpus_per_actor=0))
    simulate(planned, machine)
    assert {pool.gpus for pool in planned.pools} == {0}
    assert planned.notes == ("GPUs that stay idle: 4, as cluster.gpus_per_actor=0 runs networks on CPUs",)
    assert "idle GPUs: 4" in str(planned)


@pytest.mark.parametrize(
    ("machine", "cluster", "message"),
    [
        ("cpus=16,memory=64", Cluster(gpus_per_actor=0.5), r"gpus_per_actor=0.5 needs .* null"),
        ("cpus=16,gpus=4,memory=64", Cluster(gpus_per_actor=8), r"gpus_per_actor=8 needs a node with 8 GPUs"),
        ("cpus=16,gpus=4,memory=64", Cluster(gpus_per_actor=1.5), r"gpus_per_actor=1.5 needs a node with 2 GPUs or a"),
        ("cpus=16,gpus=4,memory=64", Cluster(gpus_per_actor=1, network_actors=5), "network_actors=5 .* room for 4"),
        ("cpus=4,memory=64", Cluster(network_actors=500), "network_actors=500 .* leave cluster.network_actors null"),
        ("cpus=4,memory=64", Cluster(cpu_actors=9), "cpu_actors=9 .* room for .* leave cluster.cpu_actors null"),
        ("cpus=0,gpus=8,memory=64", Cluster(), "needs a node with a CPU"),
        ("cpus=0.5,memory=64", Cluster(), "needs a node with a CPU"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(machine: str, cluster: Cluster, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        plan(SHAPES[0], parse_machine(machine), cluster)


@pytest.mark.parametrize(
    ("machine", "cluster", "message"),
    [
        (
            "cpus=16,memory=64",
            DEFAULT,
            r"a=gpu needs GPUs .*16 CPUs, 0 GPUs.*; leave a out, or use a machine with GPUs",
        ),
        ("cpus=16,gpus=1,memory=64", Cluster(gpus_per_actor=0), r"gpus_per_actor=0 gives them none; .*_actor null"),
    ],
)
def test_stages_that_want_a_gpu_are_refused_without_one(machine: str, cluster: Cluster, message: str) -> None:
    pools = [PoolNeed(name="fetch", kind="fetch"), PoolNeed(name="device", kind="device", gpu_setting="a=gpu")]
    with pytest.raises(DoesNotFit, match=message):
        plan_stream("masks", pools, parse_machine(machine), cluster)
    assert plan_stream("masks", pools, parse_machine("cpus=16,gpus=1,memory=64"), DEFAULT).idle_gpus == 0


def test_two_pools_with_a_whole_gpu_each_need_two_gpus() -> None:
    machine = parse_machine("cpus=16,gpus=1,memory=64")
    plan(SHAPES[0], machine, Cluster(gpus_per_actor=1))
    with pytest.raises(DoesNotFit, match=r"an actor of each pool at the same time: .* leave cluster.gpus_per_actor"):
        plan(SHAPES[3], machine, Cluster(gpus_per_actor=1))


def test_a_machine_without_nodes_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="the machine has no nodes"):
        plan(SHAPES[0], Machine(()))


def test_gpus_of_several_kinds_are_named() -> None:
    machine = replace(parse_machine("nodes=2,cpus=16,gpus=2,memory=64"), accelerators=("A100", "T4"))
    (note,) = plan(SHAPES[0], machine).notes
    assert "several kinds (A100, T4)" in note
    assert str(machine).endswith("GiB for actors), A100, T4")
    assert not plan(SHAPES[1], machine).notes  # a stream without networks
    assert not plan(SHAPES[0], replace(machine, accelerators=("A100",))).notes


def test_the_plan_is_an_aligned_table() -> None:
    text = str(plan(SHAPES[0], parse_machine("nodes=4,cpus=64,gpus=8,memory=512")))
    assert text.splitlines() == [
        "masks",
        "  pool     actors  CPUs  GPUs  threads",
        "  fetch0   1-64    0.05  0     1",
        "  device1  32      3     1     3",
        "  finish2  1-256   0.5   0     1",
        "  (write)  1-32    0.05  0     1",
        "  idle GPUs: 0",
    ]
