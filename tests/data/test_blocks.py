import pyarrow as pa
import pytest

from raypipe.containers.place import cell_uri
from raypipe.data.blocks import cut, pack, unpack


def sizes(uris: list[str | None], rows_per_block: int) -> list[int]:
    rows = pa.table({"image_id": range(len(uris)), "image_uri": pa.array(uris, pa.string())})
    blocks = list(cut(rows, rows_per_block))
    assert pa.concat_tables(blocks).equals(rows)
    return [block.num_rows for block in blocks]


def cells(*groups: int, file: str = "p.parquet") -> list[str | None]:
    return [cell_uri(file, "a", 0, group=group) for group, number in enumerate(groups) for _ in range(number)]


def test_files_are_cut_anywhere() -> None:
    assert sizes(["a.jpg", None] * 5, 4) == [4, 4, 2]
    assert sizes(["a.jpg"], 4) == [1]
    assert [block.num_rows for block in cut(pa.table({"image_id": range(5)}), 2)] == [2, 2, 1]
    assert list(cut(pa.table({"image_id": []}), 2)) == []


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((100, 100), [100, 100]),
        ((20, 20, 20), [40, 20]),
        ((30, 500), [30, *[32] * 12, 116]),
        ((129,), [32, 97]),
        ((128, 1), [128, 1]),
    ],
)
def test_row_groups_stay_whole(groups: tuple[int, ...], expected: list[int]) -> None:
    assert sizes(cells(*groups), 32) == expected


def test_the_same_group_of_two_files_is_two() -> None:
    assert sizes(cells(40) + cells(40, file="q.parquet") + ["a.jpg"] * 33, 32) == [40, 40, 32, 1]


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_a_packed_table_comes_out_as_it_was(num_rows: int) -> None:
    table = pa.table({"image_id": [str(row) for row in range(num_rows)], "crop": [b"abc"] * num_rows})
    packed = pack(table)
    assert packed.num_rows == 1
    packed.validate(full=True)
    assert unpack(packed).equals(table)
    assert unpack(table).equals(table)


def test_what_was_packed_is_freed() -> None:
    table = pa.table({"crop": [bytes(1_000_000)]})
    unpack(pack(table))
    before = pa.total_allocated_bytes()
    for _ in range(5):
        unpack(pack(table))
    assert pa.total_allocated_bytes() < before + 1_000_000
