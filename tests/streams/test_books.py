from dataclasses import replace

import pyarrow as pa
import pytest

from raypipe.data.rows import Part, Rows
from raypipe.outputs.ledger import INDEX, QUARANTINED
from raypipe.outputs.sink import WRITTEN
from raypipe.streams import books as module
from raypipe.streams.books import Books
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source
from raypipe.streams.tasks import Tasks

FOLDS: list[tuple[str, str, list[str]]] = []


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    """Books of a folder that isn't there, whose folds are noted and done at once."""

    def fold(_folder: str, kind: str, part: str, uris: list[str], *, run: int) -> str:
        FOLDS.append((kind, part, uris))
        level = 1 + int(uris[0].rsplit("/", 1)[1].split("-")[0])
        return f"{part}/{level}-{run}-{len(FOLDS)}.parquet"

    FOLDS.clear()
    monkeypatch.setattr(module, "fold", fold)
    monkeypatch.setattr(module, "Tasks", lambda inline: Tasks(inline=not inline))
    plan = Plan(name="masks", stages=(), schema=pa.schema([]), classes=())
    rows = Rows.of(pa.table({"image_id": ["a"]}))
    return Books(Source(plan=plan, rows=rows, folder="f", run=3, catalogues={}))


def written(part: str, number: int, *, todo: int, finished: int = 1, quarantined: int = 0) -> pa.Table:
    row = {
        "part": part,
        "part_todo": todo,
        "num_finished": finished,
        "num_quarantined": quarantined,
        INDEX: f"{part}/0-3-{number}.parquet" if finished else None,
        QUARANTINED: f"{part}/0-3-q{number}.parquet" if quarantined else None,
    }
    return pa.Table.from_pylist([row], schema=WRITTEN)


def test_a_part_is_complete_when_all_its_rows_are_written(books: Books) -> None:
    assert books.add(written("a", 0, todo=5, finished=3)) == []
    assert books.add(written("b", 0, todo=1)) == ["b"]
    assert books.add(written("a", 1, todo=5, finished=0, quarantined=2)) == ["a"]
    assert books.num_quarantined == 2
    assert FOLDS == []


def test_ten_files_are_folded_and_ten_of_those_again(books: Books) -> None:
    for number in range(100):
        books.add(written("a", number, todo=1000, finished=1, quarantined=1))
    folded = [(kind, len(uris), uris[0].split("-")[0]) for kind, _, uris in FOLDS]
    assert folded.count((INDEX, 10, "a/0")) == folded.count((QUARANTINED, 10, "a/0")) == 10
    assert folded.count((INDEX, 10, "a/1")) == folded.count((QUARANTINED, 10, "a/1")) == 1


def test_files_of_two_parts_are_not_mixed(books: Books) -> None:
    for number in range(9):
        books.add(written("a", number, todo=100))
        books.add(written("b", number, todo=100))
    assert FOLDS == []
    books.add(written("a", 9, todo=100))
    assert [part for _, part, _ in FOLDS] == ["a"]


def test_how_many_rows_are_left_is_known_the_better_the_more_parts_are_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> pa.Table:
        raise AssertionError("the driver reads no rows")

    monkeypatch.setattr(module, "Tasks", lambda inline: Tasks(inline=not inline))
    plan = Plan(name="masks", stages=(), schema=pa.schema([]), classes=())
    rows = Rows(tuple(Part(name, 100, read) for name in "abc"))
    books = Books(Source(plan=plan, rows=rows, folder="f", run=3, catalogues={}))
    assert (books.num_done, books.num_todo) == (0, 300)
    books.add(written("a", 0, todo=8, finished=2, quarantined=1))
    books.add(written("b", 0, todo=50, finished=2))
    books.add(written("a", 1, todo=8, finished=2))
    assert (books.num_done, books.num_todo, books.num_quarantined) == (7, 158, 1)
    drawn = Books(Source(plan=plan, rows=replace(rows, limit=30), folder="f", run=3, catalogues={}))
    drawn.add(written("a", 0, todo=20))
    assert drawn.num_todo == 30
