import pytest
import torch

from raypipe.ops.separation import objective, separation
from raypipe.ops.walk_choice import alphas_around, best_labels, steps_around, walk_objectives


def test_what_is_chosen_among_by_hand() -> None:
    assert alphas_around(3.0, "any") == alphas_around(3.0, "longer") == (3.0, 1.5, 0.75)
    assert alphas_around(3.0, "given") == (3.0,)
    assert steps_around(16, "any") == (16, 32, 8, 4, 2, 1, 0)
    assert steps_around(20, "any") == (20, 40, 10, 5, 2, 1, 0)
    assert steps_around(1, "any") == (1, 2, 0)
    assert steps_around(16, "longer") == (16, 32)
    assert steps_around(16, "given") == (16,)
    assert steps_around(0, "any") == steps_around(0, "longer") == (0,), "where there is no walk none is made"


def test_best_labels_take_the_first_of_equals() -> None:
    maps = torch.tensor([[0.5, 0.1], [0.2, 0.1], [0.5, 0.3], [0.5, 0.3]]).reshape(4, 1, 2)
    assert best_labels(maps, num_backgrounds=2).tolist() == [[[0, 1]], [[1, 1]]]
    both = best_labels(torch.stack([maps, maps.flip(-1)]), num_backgrounds=2)
    assert both.tolist() == [[[[0, 1]], [[1, 1]]], [[[1, 0]], [[1, 1]]]]


def test_hand_worked() -> None:
    """Four cells of one feature, 0 0 4 8, as in the test of `separation`: halves part 36/44 of it, one region nothing.

    Colours are the features', so that the objective is (36/44)^(5/4).
    """
    cells = torch.tensor([[[0.0, 0.0, 4.0, 8.0]]])
    flood, halves = torch.ones(1, 4), torch.tensor([[0.1, 0.1, 0.9, 0.9]])
    maps = torch.stack([torch.stack([torch.full((1, 4), 0.2), torch.zeros(1, 4), each]) for each in (flood, halves)])
    found = walk_objectives(maps, num_backgrounds=2, features=cells, colours=cells.expand(3, 1, 4))
    torch.testing.assert_close(found, torch.tensor([[0, 0], [(36 / 44) ** 1.25, 0]]))


def test_each_walk_is_judged_as_if_it_were_alone(generator: torch.Generator) -> None:
    """And to the last bit, whatever else is there: equal masks must not be told apart by rounding."""
    maps = torch.rand(5, 3 + 2, 6, 7, generator=generator)
    features, colours = torch.randn(64, 6, 7, generator=generator), torch.rand(3, 6, 7, generator=generator)
    found = walk_objectives(maps, num_backgrounds=3, features=features, colours=colours)
    assert found.shape == (5, 3)
    for step in range(5):
        for alpha in range(3):
            one = maps[step, [alpha, 3, 4]][None]
            alone = walk_objectives(one, num_backgrounds=1, features=features, colours=colours)
            assert torch.equal(alone[0, 0], found[step, alpha])
            labels = one[0].argmax(dim=0, keepdim=True).to(torch.uint8)
            parted = [separation(cells, labels, num_labels=3) for cells in (features, colours)]
            torch.testing.assert_close(objective(*parted)[0], found[step, alpha])


def test_grids_differ() -> None:
    with pytest.raises(ValueError, match="grid of"):
        walk_objectives(
            torch.zeros(1, 2, 3, 4), num_backgrounds=1, features=torch.zeros(1, 3, 5), colours=torch.zeros(3, 3, 4)
        )
