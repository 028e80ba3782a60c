import pytest

from raypipe.cluster.machines import GIB, parse_machine
from raypipe.cluster.packing import Need, Room, rooms_of, round_down, take_first


def room(text: str) -> Room:
    return Room(parse_machine(text).nodes[0])


def test_cpus_are_counted_as_ray_does() -> None:
    tenths = room("cpus=1,memory=1")
    assert [tenths.take(Need(cpus=0.1)) for _ in range(11)] == [True] * 10 + [False]


def test_a_part_of_a_gpu_lies_on_one_gpu() -> None:
    two = room("cpus=8,gpus=2,memory=1")
    assert two.take(Need(cpus=1, gpus=0.6))
    assert two.take(Need(cpus=1, gpus=0.6))
    assert not two.take(Need(cpus=1, gpus=0.6))
    assert two.idle_gpus == 0


def test_parts_fill_a_gpu_before_they_break_another() -> None:
    two = room("cpus=8,gpus=2,memory=1")
    for _ in range(2):
        assert two.take(Need(cpus=1, gpus=0.5))
    assert two.idle_gpus == 1
    assert not two.take(Need(cpus=1, gpus=2))
    assert two.take(Need(cpus=1, gpus=1))
    assert two.idle_gpus == 0


def test_what_is_refused_takes_nothing() -> None:
    small = room("cpus=2,gpus=1,memory=10")
    assert not small.take(Need(cpus=3, gpus=1))
    assert not small.take(Need(cpus=1, gpus=1, memory=8 * GIB))
    assert small.idle_gpus == 1
    assert small.memory == 7 * GIB
    assert small.take(Need(cpus=2, gpus=1, memory=7 * GIB))


def test_nodes_without_gpus_come_first_for_what_needs_none() -> None:
    rooms = rooms_of(parse_machine("cpus=4,gpus=1,memory=8", "nodes=0-1,cpus=4,memory=8"))
    assert [(found.node.gpus, found.sure) for found in rooms] == [(1, True), (0, False)]
    assert take_first(rooms, Need(cpus=4)) is rooms[1]
    assert take_first(rooms, Need(cpus=4)) is rooms[0]
    assert take_first(rooms, Need(cpus=1)) is None


@pytest.mark.parametrize(("value", "rounded"), [(1 / 3, 0.3333), (0.1 + 0.2, 0.3), (2, 2), (0.00001, 0)])
def test_rounded_to_what_ray_counts(value: float, rounded: float) -> None:
    assert round_down(value) == rounded
