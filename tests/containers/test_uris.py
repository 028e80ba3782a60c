import pyarrow as pa

from raypipe.containers.place import cell_uri, member_uri
from raypipe.containers.uris import in_containers, row_groups

URIS = pa.chunked_array(
    [
        [
            cell_uri("p#1.parquet", "a b", 3, group=0, content="png"),
            cell_uri("p#1.parquet", "a b", 9, group=0),
            cell_uri("p#1.parquet", "a b", 10, group=1),
        ],
        ["p.parquet#column=a&row=1", member_uri("t.tar", 5, 6, content="jpg"), "a#offset=1.jpg", "s3://b/a.jpg", None],
    ]
)


def test_places_are_counted() -> None:
    assert in_containers(URIS).to_pylist().count(True) == 5
    assert in_containers(pa.chunked_array([[]], pa.string())).to_pylist() == []


def test_cells_of_a_row_group_have_the_same_key() -> None:
    first, second, third, *others = row_groups(URIS).to_pylist()
    assert first == second == "p#1.parquet#0"
    assert third == "p#1.parquet#1"
    assert others == [None] * 5
