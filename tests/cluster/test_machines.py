import os
from pathlib import Path
from typing import Any

import pytest
import ray

from raypipe.cluster.machines import (
    ACTORS_MEMORY,
    GIB,
    Machine,
    NodeType,
    divide,
    fewer,
    local_cpus,
    machine_here,
    parse_machine,
)


def test_a_node_type_is_read() -> None:
    machine = parse_machine("nodes=4,cpus=64,gpus=8,memory=512")
    memory = int(512 * GIB * ACTORS_MEMORY)
    assert machine == Machine((NodeType(cpus=64, gpus=8, memory=memory, minimum=4, maximum=4),))
    assert (machine.cpus, machine.gpus) == (256, 32)


def test_nodes_and_gpus_may_be_left_out() -> None:
    (node,) = parse_machine(" cpus = 1.5 , memory=0.5").nodes
    assert (node.minimum, node.maximum, node.cpus, node.gpus) == (1, 1, 1.5, 0)
    assert node.memory == int(GIB / 2 * ACTORS_MEMORY)


def test_several_node_types_and_ranges() -> None:
    machine = parse_machine("nodes=0-8,cpus=64,gpus=8,memory=512", "cpus=4,memory=16")
    assert [(node.minimum, node.maximum) for node in machine.nodes] == [(0, 8), (1, 1)]
    assert (machine.cpus, machine.gpus) == (516, 64)
    assert "0-8 x (64 CPUs, 8 GPUs, 358 GiB for actors) + 1 x (4 CPUs" in str(machine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' in the node type '' can't be read"),
        ("cpus=64", "has no memory"),
        ("nodes=2", "has no cpus and no memory"),
        ("cpus=many,memory=1", "'cpus=many' in the node type"),
        ("cpus=-1,memory=1", "'cpus=-1'"),
        ("cpus=1,memory=1,gpus=0.5", "'gpus=0.5'"),
        ("cpus=1,memory=1,disk=3", "'disk=3'"),
        ("cpus=1,cpus=2,memory=1", "'cpus=2'"),
        ("nodes=0,cpus=1,memory=1", "no range with a node"),
        ("nodes=8-2,cpus=1,memory=1", "no range with a node"),
        ("nodes=-2,cpus=1,memory=1", "'nodes=-2'"),
    ],
)
def test_a_text_without_the_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"write nodes=4,cpus=64,gpus=8,memory=512") as error:
        parse_machine(text)
    assert message in str(error.value)


def test_a_machine_has_node_types() -> None:
    with pytest.raises(ValueError, match="at least one node type, got none"):
        parse_machine()


def test_the_machine_at_hand_is_what_ray_says(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_node = {"CPU": 64.0, "GPU": 8.0, "memory": 5e11, "accelerator_type:A100": 1.0, "node:10.0.0.1": 1.0}
    nodes: list[dict[str, Any]] = [
        {"NodeID": "a", "Alive": True, "Resources": {"memory": 1e9, "node:__internal_head__": 1.0}},
        {"NodeID": "b", "Alive": True, "Resources": gpu_node},
        {"NodeID": "c", "Alive": False, "Resources": {"CPU": 1000.0}},
        {"NodeID": "d", "Alive": True, "Resources": gpu_node},
        {"NodeID": "sick", "Alive": True, "Resources": {"CPU": 1000.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    head = NodeType(cpus=0, gpus=0, memory=10**9, minimum=1, maximum=1)
    workers = NodeType(cpus=64, gpus=8, memory=5 * 10**11, minimum=2, maximum=2)
    assert machine_here(without={"sick"}) == Machine((head, workers), ("A100",))


def cgroup(root: Path, line: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.usefixtures("sixty_four_cores")
@pytest.mark.parametrize(
    ("line", "files", "cpus"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "800000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        # The outer group's quota binds, too.
        ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "max 100000\n"}, 4),
        ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "200000 100000\n"}, 2),
        # A container sees its own group as the root, whatever the host calls it.
        (
            "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_the_quota_of_control_groups_counts(tmp_path: Path, line: str, files: dict[str, str], cpus: int) -> None:
    assert local_cpus(root=cgroup(tmp_path, line, **files)) == cpus


@pytest.mark.usefixtures("sixty_four_cores")
def test_a_system_without_control_groups_has_its_cores(tmp_path: Path) -> None:
    assert local_cpus(root=tmp_path) == 64


def test_the_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert local_cpus(root=cgroup(tmp_path, "0::/\n", **{"cpu.max": "800000 100000\n"})) == 1


def test_this_process_has_a_cpu() -> None:
    assert 1 <= local_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("machine", "number", "part"),
    [
        ("nodes=4,cpus=64,gpus=8,memory=512", 2, "2 x (64 CPUs, 8 GPUs, 358 GiB for actors)"),
        ("nodes=4,cpus=64,gpus=8,memory=512", 3, "1 x (64 CPUs, 8 GPUs, 358 GiB for actors)"),
        ("nodes=4,cpus=64,gpus=8,memory=512", 4, "1 x (64 CPUs, 8 GPUs, 358 GiB for actors)"),
        ("nodes=4,cpus=64,gpus=8,memory=512", 6, "1 x (32 CPUs, 4 GPUs, 179 GiB for actors)"),
        ("nodes=4,cpus=64,gpus=8,memory=512", 32, "1 x (8 CPUs, 1 GPUs, 45 GiB for actors)"),
        ("nodes=4,cpus=64,gpus=8,memory=512", 33, None),  # a GPU isn't divided
        ("cpus=16,memory=64", 5, "1 x (3 CPUs, 0 GPUs, 9 GiB for actors)"),
        ("cpus=16,memory=64", 12, None),  # too little memory
        ("cpus=2,memory=64", 3, None),
        ("nodes=0-8,cpus=64,gpus=8,memory=512", 2, "0-4 x (64 CPUs, 8 GPUs, 358 GiB for actors)"),
    ],
)
def test_a_machine_is_divided_into_equal_parts(machine: str, number: int, part: str | None) -> None:
    found = divide(parse_machine(machine), number)
    assert (found and str(found)) == part


def test_parts_of_a_mixed_machine_fit_it_together() -> None:
    machine = parse_machine("nodes=2,cpus=16,gpus=4,memory=64", "cpus=64,memory=64")
    for number in range(1, 9):
        part = divide(machine, number)
        assert part is not None
        assert part.gpus * number <= machine.gpus
        assert part.cpus * number <= machine.cpus


SMALL, LARGE = "nodes=0-8,cpus=16,memory=64", "nodes=2-4,cpus=64,gpus=8,memory=512"


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([], [(0, 8), (2, 4)]),
        ([(16, 0)], [(0, 7), (2, 4)]),
        ([(64, 8)], [(0, 8), (1, 3)]),
        ([(64, 8)] * 2, [(0, 8), (0, 2)]),
        ([(64, 8)] * 3, [(0, 8), (0, 1)]),
        ([(64, 8)] * 4, [(0, 8)]),
        ([(64, 8)] * 5, [(0, 8)]),
        ([(15, 0)], [(0, 7), (2, 4)]),
        ([(62, 7)], [(0, 8), (1, 3)]),
        ([(64, 0)], [(0, 7), (2, 4)]),
        ([(16, 0)] * 8 + [(64, 8)] * 4, []),
    ],
)
def test_sick_nodes_are_none_that_an_autoscaler_may_bring(
    gone: list[tuple[float, float]], left: list[tuple[int, int]]
) -> None:
    machine = fewer(parse_machine(SMALL, LARGE), gone)
    assert [(node.minimum, node.maximum) for node in machine.nodes] == left
