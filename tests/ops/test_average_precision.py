from itertools import permutations

import numpy as np
import pytest

from raypipe.ops.average_precision import average_precision, chance_precision, skill


def of(scores: list[float], positive: list[int]) -> float:
    return average_precision(np.array(scores, np.float64), np.array(positive, np.bool_))


def test_by_hand() -> None:
    """Positive are ranks 1 and 3: (1/1 + 2/3) / 2. Of ranks 2 and 4: (1/2 + 2/4) / 2."""
    assert of([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    assert of([0.9, 0.8, 0.7, 0.1], [0, 1, 0, 1]) == pytest.approx(1 / 2)
    assert of([0.2, 0.9], [0, 1]) == 1


def test_images_of_equal_score_come_together() -> None:
    """The second and third share rank 3, at which two of three are positive: (1/1 + 2/3) / 2, in either order."""
    assert of([3, 2, 2, 1], [1, 0, 1, 0]) == of([3, 2, 2, 1], [1, 1, 0, 0]) == pytest.approx(5 / 6)
    assert of([1, 1, 1, 1], [0, 1, 0, 0]) == 1 / 4


def test_scores_count_by_their_order() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(50), rng.random(50) < 0.3
    order = rng.permutation(50)
    found = average_precision(scores, positive)
    assert average_precision(np.exp(5 * scores), positive) == found
    assert average_precision(scores[order], positive[order]) == pytest.approx(found)
    assert 0 < average_precision(-scores, positive) <= 1


@pytest.mark.parametrize("positive", [[0, 0], [1, 1], []])
def test_a_class_that_all_images_show_or_none_has_none(positive: list[int]) -> None:
    assert np.isnan(of([0.5] * len(positive), positive))
    assert np.isnan(chance_precision(sum(positive), len(positive)))


@pytest.mark.parametrize(("num_positive", "num_images"), [(1, 2), (1, 5), (2, 5), (4, 5), (3, 6)])
def test_chance_is_the_mean_over_all_orders(num_positive: int, num_images: int) -> None:
    positive = np.arange(num_images) < num_positive
    orders = [average_precision(np.array(each, np.float64), positive) for each in permutations(range(num_images))]
    assert chance_precision(num_positive, num_images) == pytest.approx(np.mean(orders))


def test_chance_is_the_share_of_positive_images_where_there_are_many() -> None:
    assert chance_precision(30_000, 100_000) == pytest.approx(0.3, abs=1e-3)
    assert chance_precision(2, 50) > 0.1, "and far more where there are few"


def test_skill_by_hand() -> None:
    assert skill(0.6, 0.2) == pytest.approx(0.5)
    assert skill(1.0, 0.7) == 1
    assert skill(0.1, 0.2) == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are nan"):
        of([float("nan"), 0.1], [1, 0])
    with pytest.raises(ValueError, match="expected 0 to 3 positive images, got 4"):
        chance_precision(4, 3)
