"""Room that a lost controller had reserved is free again, and that of other trainings isn't."""

from ray.train import ScalingConfig
from ray.util import placement_group, placement_group_table

from raypipe.training.reservations import free, mark


def test_a_mark_is_no_other_trainings() -> None:
    plain = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 3})
    (scaling, number), (_, other) = mark(plain), mark(plain)
    assert scaling.resources_per_worker == {"CPU": 3, "memory": number}
    assert scaling.num_workers == 2
    assert number != other


def test_the_room_of_a_lost_controller_is_free_again(local_ray: None) -> None:
    _, number = mark(ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}))
    left, others = (placement_group([{"CPU": 0.5, "memory": memory}] * 2) for memory in (number, number + 1))
    assert left.wait(30)
    assert others.wait(30)
    assert free(number) == 1
    states = {name: group["state"] for name, group in placement_group_table().items()}
    assert states.get(left.id.hex(), "REMOVED") == "REMOVED"
    assert states[others.id.hex()] == "CREATED"
    assert free(number) == 0
    assert free(number + 1) == 1
