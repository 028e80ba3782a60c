import pyarrow as pa
import pytest

from raypipe.data.rows import InMemory, Part, Rows
from raypipe.streams import unique
from raypipe.streams.unique import check_unique


def make_rows(**parts: list[str]) -> Rows:
    tables = {name: pa.table({"image_id": pa.array(ids, pa.string())}) for name, ids in parts.items()}
    found = tuple(Part(name, table.num_rows, InMemory(table)) for name, table in tables.items())
    return Rows(found, schema=pa.schema([("image_id", pa.string())]))


@pytest.mark.parametrize("at_a_time", [3, 10**6])
def test_ids_of_two_parts_are_found_in_any_number_of_rounds(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique, "_AT_A_TIME", at_a_time)
    check_unique(make_rows(a=["1", "2", "3"], b=["4", "5"], c=[]))
    with pytest.raises(ValueError, match="more than once, such as '2' in part a; '2' in part b: every row"):
        check_unique(make_rows(a=["1", "2", "3"], b=["4", "2"], c=["6"]))


def test_ids_whose_hashes_are_equal_are_no_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique, "hash_names", lambda names, _: unique.np.full(len(names), 7, unique.np.uint64))
    check_unique(make_rows(a=["1", "2"], b=["3"]))
    with pytest.raises(ValueError, match="'1' in part a; '1' in part b"):
        check_unique(make_rows(a=["1", "2"], b=["1"]))
