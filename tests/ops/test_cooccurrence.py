import math

import numpy as np
import pytest

from raypipe.ops.cooccurrence import frequent_pairs, label_counts


def test_counts_by_hand():
    present = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    assert label_counts(present).tolist() == [[3, 2, 1], [2, 2, 1], [1, 1, 1]]


def test_counts_of_parts_add_up():
    present = np.random.default_rng(0).random((50, 6)) < 0.4
    assert (label_counts(present[:20]) + label_counts(present[20:]) == label_counts(present)).all()


def test_a_pair_by_hand():
    counts = np.array([[40, 10], [10, 10]])
    (pair,) = frequent_pairs(counts, num_images=100)
    assert (pair.first, pair.second) == (1, 0)  # the rarer one is first
    assert (pair.num_both, pair.num_first, pair.num_second) == (10, 10, 40)
    assert pair.share == 1
    assert pair.lift == pytest.approx(10 / 4)
    assert pair.deviation == pytest.approx(6 / math.sqrt(4 * 0.9 * 0.6))


def test_independent_labels_make_no_pair():
    assert frequent_pairs(np.array([[50, 25], [25, 50]]), num_images=100) == []
    present = np.random.default_rng(1).random((5000, 20)) < 0.2
    assert len(frequent_pairs(label_counts(present), num_images=5000)) <= 1


def test_few_images_and_labels_of_every_image_say_nothing():
    assert frequent_pairs(np.array([[4, 4], [4, 4]]), num_images=1000) == []
    assert frequent_pairs(np.array([[100, 30], [30, 30]]), num_images=100) == []


def test_the_largest_share_comes_first():
    counts = np.array([[30, 30, 0, 0], [30, 40, 0, 0], [0, 0, 50, 20], [0, 0, 20, 40]])
    assert [(pair.first, pair.second) for pair in frequent_pairs(counts, num_images=1000)] == [(0, 1), (3, 2)]


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match=r"counts\[a, b\] <= counts\[a, a\]"):
        frequent_pairs(np.array([[1, 2], [2, 3]]), num_images=9)
    with pytest.raises(ValueError, match=r"impossible counts: .* <= 2 images"):
        frequent_pairs(np.array([[3]]), num_images=2)
