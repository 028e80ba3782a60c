from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.given_seeds import check_seed, decode_seed, encode_seed
from raypipe.schema import GIVEN_SEEDS

NAN = float("nan")


def test_columns_come_back_as_they_were() -> None:
    maps = {"cat": np.array([[0.0, 1.0, NAN]]), "dog": np.array([[0.5, NAN, 0.25]], np.float16)}
    table = pa.Table.from_pylist([encode_seed(maps)], schema=GIVEN_SEEDS)
    row = table.to_pylist()[0]
    assert row["seed_classes"] == ["cat", "dog"]
    np.testing.assert_array_equal(decode_seed(row), [[[0, 1, NAN]], [[0.5, NAN, 0.25]]])


def test_an_image_of_which_nothing_is_said() -> None:
    assert decode_seed(encode_seed({})).shape == (0, 1, 1)


@pytest.mark.parametrize(
    ("classes", "maps", "message"),
    [
        ([1], np.ones((1, 2, 2)), r"expected names as classes, got \[1\]"),
        ([" "], np.ones((1, 2, 2)), "expected names as classes"),
        (["cat", "cat"], np.ones((2, 2, 2)), "one map for each class"),
        (["cat"], np.ones((2, 2, 2)), r"of the K = 1 classes, got float64 \(2, 2, 2\)"),
        (["cat"], np.ones((2, 2)), r"got float64 \(2, 2\)"),
        (["cat"], np.ones((1, 2, 2), np.uint8), "got uint8"),
        (["cat"], np.ones((1, 0, 2)), r"got float64 \(1, 0, 2\)"),
        (
            ["cat"],
            np.array([[[0, 1, 1.5]]]),
            r"got 1\.5 at \(0, 2\) of the map of 'cat': scale maps where they are made",
        ),
        (["a", "b"], np.array([[[0.0]], [[-0.25]]]), r"got -0\.25 at \(0, 0\) of the map of 'b'"),
        (["cat"], np.array([[[np.inf]]]), "got inf"),
        ([str(number) for number in range(255)], np.ones((255, 1, 1)), "at most 254 classes, got 255"),
    ],
)
def test_what_breaks_the_contract(classes: list[Any], maps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_seed(classes, maps)
