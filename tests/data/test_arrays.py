import numpy as np
import pytest

from raypipe.data.arrays import decode_labels, encode_labels


@pytest.mark.parametrize("size", [(1, 1), (61, 83)])
def test_labels_come_back(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    for array in (labels, np.asfortranarray(labels), labels[::-1]):
        np.testing.assert_array_equal(decode_labels(encode_labels(array), height=size[0], width=size[1]), array)


def test_labels_of_areas_take_little_room() -> None:
    labels = np.zeros((300, 400), np.uint8)
    labels[50:200, 100:300] = 7
    assert len(encode_labels(labels)) < labels.size / 50
