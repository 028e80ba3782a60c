import pyarrow as pa
import pytest

from raypipe.data.rows import InMemory, Part, Rows
from raypipe.pipelines import learned_rows
from raypipe.pipelines.learned_rows import draw_to_learn

CLASSES = ("cat", "dog")


def make_rows(*sizes: int) -> Rows:
    """Parts of so many rows, cats but for every hundredth."""
    tables = []
    for number, size in enumerate(sizes):
        ids = [f"{number}-{index}" for index in range(size)]
        labels = [["dog"] if index % 100 == 0 else ["cat"] for index in range(size)]
        tables.append(pa.table({"image_id": ids, "labels": labels}))
    parts = tuple(Part(f"p{number}", len(table), InMemory(table)) for number, table in enumerate(tables))
    return Rows(parts, schema=tables[0].schema)


def draw(rows: Rows, number: int | None) -> list[str]:
    ids: list[str] = draw_to_learn(rows, classes=CLASSES, number=number, seed=0)["image_id"].to_pylist()
    return ids


def test_the_draw_is_that_of_one_table_and_rare_classes_come_first() -> None:
    rows = make_rows(300, 500, 200)
    one = Rows.of(pa.concat_tables([rows.read(part) for part in rows.parts]))
    assert draw(rows, 80) == draw(one, 80)
    dogs = [f"{number}-{index}" for number, size in enumerate((300, 500, 200)) for index in range(0, size, 100)]
    assert set(dogs) <= set(draw(rows, 80))
    assert len(draw(rows, 80)) == 80


@pytest.mark.parametrize("number", [None, 1000, 5000])
def test_all_rows_are_taken_where_there_are_no_more(number: int | None) -> None:
    assert len(draw(make_rows(300, 700), number)) == 1000


def test_a_margin_that_is_too_small_is_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(300, 500, 200)
    expected = draw(rows, 80)
    monkeypatch.setattr(learned_rows, "_SLACK", 0.01)
    assert draw(rows, 80) == expected
