from dataclasses import replace
from itertools import product

import pytest
from placement import Nodes

from raypipe.cluster.machines import Machine, parse_machine
from raypipe.cluster.resources import DoesNotFit
from raypipe.cluster.trainings import VALIDATION_POOLS, TrainingPlan, plan_training
from raypipe.config import Cluster

DEFAULT = Cluster()


def plan(
    machine: Machine, cluster: Cluster = DEFAULT, *, batch_size: int = 16, validates: bool = False
) -> TrainingPlan:
    return plan_training("classifier", batch_size, machine, cluster, validates=validates)


def simulate(planned: TrainingPlan, machine: Machine, *, spread: bool = False) -> Nodes:
    """Starts all workers, then all actors beside them; fails where one has no room."""
    nodes = Nodes(machine)
    if spread:
        nodes.nodes.reverse()
        nodes.whole.reverse()
    nodes.place(planned.workers, planned.cpus, planned.gpus)
    nodes.place(planned.workers * planned.loaders, planned.loader_cpus)
    nodes.place(planned.workers * VALIDATION_POOLS * planned.validation_actors, planned.validation_cpus)
    return nodes


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("batch_size", [8, 16, 32])
@pytest.mark.parametrize("gpus", [0, 1, 4, 8])
@pytest.mark.parametrize(("nodes", "cpus"), [*product([1, 3, 16], [4, 8, 16, 64, 192]), (1, 1), (1, 2), (1, 3)])
def test_every_machine_trains(nodes: int, cpus: int, gpus: int, batch_size: int, validates: bool) -> None:
    machine = parse_machine(f"nodes={nodes},cpus={cpus},gpus={gpus},memory={4 * cpus + 32 * gpus}")
    planned = plan(machine, batch_size=batch_size, validates=validates)
    most = nodes * gpus or nodes
    assert planned.workers == max(number for number in range(1, most + 1) if batch_size % number == 0)
    assert planned.gpus == (1 if gpus else 0)
    assert simulate(planned, machine).idle_gpus == planned.idle_gpus == nodes * gpus - gpus_of(planned)
    assert bool(planned.notes) == bool(planned.idle_gpus)
    assert 1 <= planned.threads <= max(1, planned.cpus)
    assert planned.loaders >= 1
    assert bool(planned.validation_actors) == validates
    if gpus:
        assert planned.loaders >= min(16, nodes * cpus // planned.workers - 1)
    else:
        assert planned.threads >= min(0.8 * cpus, max(1, cpus - 1))
        assert planned.threads + (cpus > 1) <= cpus, "a loader would stop threads that wait for one another"


def gpus_of(planned: TrainingPlan) -> int:
    return int(planned.workers * planned.gpus)


def test_cpus_that_gpu_workers_leave_go_to_loaders() -> None:
    planned = plan(parse_machine("nodes=2,cpus=64,gpus=8,memory=512"))
    assert (planned.workers, planned.threads, planned.loaders, planned.loader_cpus) == (16, 1, 7, 1)
    planned = plan(parse_machine("nodes=2,cpus=64,gpus=8,memory=512"), validates=True)
    assert (planned.loaders, planned.loader_cpus, planned.validation_actors, planned.validation_cpus) == (
        7,
        0.5,
        1,
        0.5,
    )


def test_a_small_machine_leaves_a_core_to_its_loader() -> None:
    planned = plan(parse_machine("cpus=2,memory=8"), validates=True)
    assert (planned.workers, planned.cpus, planned.threads) == (1, 1, 1)
    assert (planned.loaders, planned.loader_cpus, planned.validation_actors) == (1, 0.25, 1)
    planned = plan(parse_machine("cpus=1,memory=8"), validates=True)
    assert (planned.workers, planned.cpus, planned.threads, planned.loader_cpus) == (1, 1, 1, 0)


def test_fewer_workers_go_on_while_nodes_are_missing() -> None:
    machine = parse_machine("nodes=4,cpus=16,gpus=1,memory=64")
    assert plan(machine).min_workers == plan(machine).workers == 4, "by default none are missing"
    planned = plan(machine, Cluster(min_train_workers=1))
    assert (planned.min_workers, planned.workers) == (1, 4)
    assert planned == replace(plan(machine), min_workers=1), "each has what it has in the whole group"
    assert "worker  1-4 " in str(planned)


@pytest.mark.parametrize(
    ("types", "workers"),
    [
        (["cpus=4,gpus=8,memory=128", "nodes=2,cpus=64,memory=256"], 8),
        (["nodes=2,cpus=64,gpus=4,memory=512", "cpus=8,gpus=1,memory=64", "cpus=0,memory=8"], 8),
        (["cpus=0,gpus=2,memory=64", "cpus=16,memory=64"], 2),
        (["cpus=0,memory=8", "nodes=2,cpus=16,memory=64"], 2),
        # One worker of 168 threads does more than two of 4.
        (["cpus=192,memory=700", "cpus=4,memory=16"], 1),
    ],
)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("spread", [False, True])
def test_nodes_that_differ(types: list[str], workers: int, validates: bool, spread: bool) -> None:
    machine = parse_machine(*types)
    planned = plan(machine, validates=validates)
    assert planned.workers == workers
    simulate(planned, machine, spread=spread)


def test_loaders_use_nodes_without_gpus() -> None:
    planned = plan(parse_machine("cpus=4,gpus=4,memory=128", "nodes=2,cpus=64,memory=256"))
    assert (planned.workers, planned.loaders) == (4, 16)


def test_gpus_that_stay_over_are_named() -> None:
    planned = plan(parse_machine("cpus=64,gpus=6,memory=512"), batch_size=32)
    assert (planned.workers, planned.idle_gpus) == (4, 2)
    assert "GPUs that stay idle: 2, as the workers share a batch of 32, and 4 is the largest number" in planned.notes[0]


def test_with_an_autoscaler_a_training_takes_what_it_may_bring() -> None:
    planned = plan(parse_machine("nodes=0-4,cpus=16,gpus=4,memory=128"))
    assert (planned.workers, planned.idle_gpus) == (16, 0)


def test_little_memory_limits_the_loaders() -> None:
    assert plan(parse_machine("cpus=64,gpus=1,memory=16")).loaders == 9
    assert plan(parse_machine("cpus=64,gpus=1,memory=1")).loaders == 1


def test_what_the_user_sets_wins() -> None:
    machine = parse_machine("nodes=2,cpus=16,gpus=4,memory=128")
    planned = plan(machine, Cluster(train_workers=2, gpus_per_train_worker=2))
    simulate(planned, machine)
    assert (planned.workers, planned.gpus, planned.idle_gpus) == (2, 2, 4)
    assert planned.notes == ("GPUs that stay idle: 4, as cluster.train_workers is 2",)
    planned = plan(machine, Cluster(gpus_per_train_worker=0))
    simulate(planned, machine)
    assert (planned.workers, planned.gpus, planned.threads) == (2, 0, 14)
    assert planned.notes == ("GPUs that stay idle: 8, as cluster.gpus_per_train_worker=0 trains on CPUs",)


@pytest.mark.parametrize(("cpus", "each"), [(1, 0.5), (2, 0.5), (3, 1), (16, 7)])
def test_several_workers_on_a_node_without_gpus(cpus: int, each: float) -> None:
    machine = parse_machine(f"cpus={cpus},memory=64")
    planned = plan(machine, Cluster(train_workers=2), validates=True)
    simulate(planned, machine)
    assert (planned.workers, planned.cpus) == (2, each)


def test_a_lone_worker_may_have_a_part_of_a_gpu() -> None:
    machine = parse_machine("cpus=16,gpus=2,memory=64")
    planned = plan(machine, Cluster(gpus_per_train_worker=0.5))
    assert (planned.workers, planned.gpus, planned.idle_gpus) == (1, 0.5, 1)


@pytest.mark.parametrize(
    ("machine", "cluster", "message"),
    [
        (
            "cpus=16,memory=64",
            Cluster(train_workers=3),
            r"train_workers=3 .* batch_size=16; .* one of \[1, 2, 4, 8, 16\]",
        ),
        ("cpus=16,gpus=4,memory=64", Cluster(min_train_workers=5), "min_train_workers=5 is more than the 4 workers of"),
        ("cpus=64,memory=64", Cluster(train_workers=32), "train_workers=32 needs a batch that it divides"),
        ("cpus=16,memory=64", Cluster(gpus_per_train_worker=1), "gpus_per_train_worker=1 needs .* leave .* null"),
        ("cpus=16,gpus=4,memory=64", Cluster(train_workers=8), "train_workers=8 with 1 GPUs each .* room for 4"),
        (
            "cpus=16,gpus=4,memory=64",
            Cluster(train_workers=2, gpus_per_train_worker=0.5),
            "workers that train together need whole GPUs",
        ),
        ("cpus=16,gpus=4,memory=64", Cluster(gpus_per_train_worker=1.5), "gpus_per_train_worker=1.5 needs"),
        ("cpus=0,gpus=8,memory=64", Cluster(), "needs a node with a CPU"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(machine: str, cluster: Cluster, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        plan(parse_machine(machine), cluster)


def test_more_workers_than_cpus_can_run_are_refused() -> None:
    with pytest.raises(DoesNotFit, match=r"train_workers=512 is more than 1 x \(2 CPUs.* can hold"):
        plan(parse_machine("cpus=2,memory=64"), Cluster(train_workers=512), batch_size=512)


def test_the_plan_is_an_aligned_table() -> None:
    text = str(plan(parse_machine("cpus=64,gpus=8,memory=512"), validates=True))
    assert text.splitlines() == [
        "classifier",
        "  pool        actors     CPUs  GPUs  threads",
        "  worker      8          1     1     1",
        "  loader      8 x 7      0.5   0     1",
        "  validation  8 x 2 x 1  0.5   0     1",
        "  idle GPUs: 0",
    ]
