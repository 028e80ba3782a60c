"""Which images of a large set a training learns from."""

import time
from collections import Counter
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.training.selection import KEY, Totals, count, drawn, screen, suffice, with_keys

CLASSES = ("cat", "dog", "emu")


def make_rows(labels: list[list[str] | None], supervision: list[str | None] | None = None) -> pa.Table:
    columns = {
        "image_id": [f"image-{index}" for index in range(len(labels))],
        "labels": pa.array(labels, pa.list_(pa.string())),
    }
    if supervision is not None:
        columns["supervision"] = pa.array(supervision, pa.string())
    return pa.table(columns)


def ids(rows: pa.Table) -> list[str]:
    names: list[str] = rows["image_id"].to_pylist()
    return names


def common_and_rare(number: int, *, rare: int) -> pa.Table:
    """Cats, and at the end a few dogs and emus, of which the last shows both."""
    rows: list[list[str] | None] = [["cat"]] * (number - 2 * rare - 1)
    return make_rows([*rows, *([["dog"]] * rare), *([["emu"]] * rare), ["dog", "emu"]])


def draw(rows: pa.Table, number: int | None, *, seed: int = 0) -> pa.Table:
    return drawn(with_keys(rows, seed=seed), classes=CLASSES, number=number)


def draw_of_parts(parts: list[pa.Table], number: int, *, seed: int) -> pa.Table:
    """As tasks do it: each counts a part, then sends what may be drawn of it; with no margin at first."""
    totals = reduce(Totals.plus, [count(part, classes=CLASSES) for part in parts])
    slack = 1.0
    while True:
        options: dict[str, Any] = {"classes": CLASSES, "number": number, "slack": slack}
        found = pa.concat_tables([screen(part, totals, seed=seed, **options) for part in parts])
        if suffice(found, totals, **options):
            return drawn(found, classes=CLASSES, number=number)
        slack *= 2


labels_of_images = st.lists(
    st.none() | st.lists(st.sampled_from([*CLASSES, "unknown"]), max_size=3), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(labels=labels_of_images, number=st.integers(1, 20), seed=st.integers(0, 3), data=st.data())
def test_the_draw_is_the_same_however_the_rows_are_split(
    labels: list[list[str] | None], number: int, seed: int, data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["mask", "weak", None]), min_size=len(labels), max_size=len(labels)))
    rows = make_rows(labels, kinds)
    whole = draw(rows, number, seed=seed)
    shuffled = rows.take(data.draw(st.permutations(range(len(labels)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=5)))
    parts = [shuffled.slice(start, end - start) for start, end in zip([0, *cuts], [*cuts, len(labels)], strict=True)]
    assert draw_of_parts(parts, number, seed=seed) == whole


@settings(max_examples=200, deadline=None)
@given(labels=labels_of_images, number=st.integers(1, 40), data=st.data())
def test_classes_and_true_masks_have_what_is_promised(
    labels: list[list[str] | None], number: int, data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["mask", "weak"]), min_size=len(labels), max_size=len(labels)))
    rows = make_rows(labels, kinds)
    chosen = draw(rows, number)
    assert chosen.num_rows == min(number, rows.num_rows)
    assert len(set(ids(chosen))) == chosen.num_rows

    def by_class(table: pa.Table) -> Counter[str]:
        return Counter(name for names in table["labels"].to_pylist() for name in set(names or []))

    there, taken = by_class(rows), by_class(chosen)
    for name in CLASSES:
        assert taken[name] >= min(there[name], number // (2 * len(CLASSES)))
    assert chosen["supervision"].to_pylist().count("mask") >= min(kinds.count("mask"), number // 2)


def test_a_set_that_is_small_enough_is_taken_as_it_is() -> None:
    rows = make_rows([["cat"], None, [], ["dog"]])
    for number in (None, 4, 5):
        assert draw(rows, number) == rows
    assert draw(rows, 3).num_rows == 3
    assert KEY not in draw(rows, 3).column_names


def test_rare_classes_are_drawn_first_and_the_others_at_random() -> None:
    rows = common_and_rare(4000, rare=10)
    counts = Counter(name for names in draw(rows, 120)["labels"].to_pylist() for name in names)
    assert (counts["dog"], counts["emu"]) == (11, 11), "no more than 120 / 6 images show them"
    assert counts["cat"] == 120 - 21
    # Of the cats each is as likely as the other: those of the first half come in half of the draws.
    early = sum(int(name[6:]) < 1990 for seed in range(20) for name in ids(draw(rows, 120, seed=seed)))
    assert early == pytest.approx(20 * 99 / 2, abs=4 * np.sqrt(20 * 99 / 4))


def test_a_class_named_twice_counts_once() -> None:
    twice = make_rows([["dog", "dog"]] * 10 + [["cat"]] * 1000)
    once = make_rows([["dog"]] * 10 + [["cat"]] * 1000)
    assert ids(draw(twice, 36)) == ids(draw(once, 36))


def test_seeds_draw_others() -> None:
    rows = common_and_rare(400, rare=3)
    assert len({tuple(ids(draw(rows, 50, seed=seed))) for seed in range(5)}) == 5


def test_a_larger_draw_of_unlabelled_images_holds_the_smaller_one() -> None:
    """So that a training of more images learns from the same ones again."""
    rows = make_rows([None] * 300)
    assert set(ids(draw(rows, 50))) < set(ids(draw(rows, 100)))


def test_of_no_rows_none_are_drawn() -> None:
    assert draw(make_rows([]), 3).num_rows == 0


def test_a_part_takes_less_than_a_second_and_sends_its_share() -> None:
    rng = np.random.default_rng(0)
    classes = tuple(f"class {index}" for index in range(80))
    labels = [[classes[index] for index in row] for row in rng.integers(0, 80, (50_000, 3))]
    rows = make_rows([*labels])
    started = time.process_time()
    totals = count(rows, classes=classes)
    of_twenty = Totals(20 * totals.num_rows, 0, 20 * totals.of_classes)
    left = screen(rows, of_twenty, classes=classes, number=200_000, seed=0, slack=1.25)
    assert time.process_time() - started < 1
    assert 10_000 <= left.num_rows <= 1.3 * 10_000
