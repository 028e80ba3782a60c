from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypipe.training.held_out import FOLDS, Asked, folds_of, hold_out, read_asked, write_asked

CLASSES = ("cat", "dog", "rare")


def rows(number: int, *, num_rare: int = 0) -> pa.Table:
    labels = [["cat"] if index % 2 else ["dog", "cat"] for index in range(number)]
    labels[:num_rare] = [["rare"]] * num_rare
    return pa.table({"image_id": [f"image {index}" for index in range(number)], "labels": labels})


@pytest.mark.parametrize(("number", "held"), [(999, 0), (1000, 50), (1400, 70), (20_000, 1000), (30_000, 1000)])
def test_so_many_are_held_out(number: int, held: int) -> None:
    kept, asked = hold_out(rows(number), classes=CLASSES)
    assert len(asked.held_out) == held
    assert kept.num_rows == number - held
    assert not set(asked.held_out) & set(kept["image_id"].to_pylist())
    assert set(asked.learned) <= set(kept["image_id"].to_pylist())
    assert len(asked.learned) == (held or min(number, 1000))


def test_order_of_the_rows_does_not_matter() -> None:
    table = rows(1500)
    mixed = table.take(np.random.default_rng(0).permutation(1500))
    kept, asked = hold_out(table, classes=CLASSES)
    again, same = hold_out(mixed, classes=CLASSES)
    assert same == asked
    assert kept["image_id"].to_pylist() == [
        name for name in table["image_id"].to_pylist() if name not in asked.held_out
    ]
    assert sorted(again["image_id"].to_pylist()) == sorted(kept["image_id"].to_pylist())


def test_a_set_that_grows_keeps_nearly_all_of_them() -> None:
    _, before = hold_out(rows(2000), classes=CLASSES)
    _, after = hold_out(rows(3000), classes=CLASSES)
    assert len(set(before.held_out) - set(after.held_out)) < 15
    assert len(after.held_out) == 150


def test_a_class_of_few_images_keeps_them_for_learning() -> None:
    kept, asked = hold_out(rows(1000, num_rare=19), classes=CLASSES)
    assert kept["labels"].to_pylist().count(["rare"]) == 19
    assert len(asked.held_out) == 50
    kept, _ = hold_out(rows(20_000, num_rare=200), classes=CLASSES)
    assert kept["labels"].to_pylist().count(["rare"]) < 200


def test_where_nearly_all_images_show_rare_classes_none_is_held_out() -> None:
    labels = [[f"class {index % 100}"] for index in range(1000)]
    table = pa.table({"image_id": [str(index) for index in range(1000)], "labels": labels})
    kept, asked = hold_out(table, classes=[f"class {index}" for index in range(100)])
    assert kept.num_rows == 1000
    assert asked.held_out == []
    assert len(asked.learned) == 1000


def test_folds_follow_from_ids() -> None:
    ids = [str(index) for index in range(1000)]
    folds = folds_of(ids)
    assert sorted(Counter(folds.tolist())) == list(range(FOLDS))
    assert min(Counter(folds.tolist()).values()) > 150
    assert folds_of(ids[:3] + ids[500:]).tolist() == [*folds[:3], *folds[500:]]


def test_what_is_asked_is_kept(tmp_path: Path) -> None:
    asked = Asked(held_out=["ä/1", "2"], learned=["3"])
    assert read_asked(str(tmp_path)) is None
    write_asked(asked, str(tmp_path))
    assert read_asked(str(tmp_path)) == asked
