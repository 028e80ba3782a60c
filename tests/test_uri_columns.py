import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.uri import absolute
from raypipe.uri_columns import absolute_all

FOLDERS = ("/", "/data/a b", "s3://bucket", "s3://bucket/x", "http://host/x", "memory:///a", "zip://x::/b.zip")
PIECES = st.sampled_from(
    [
        *(
            "a",
            "é",
            " ",
            "~",
            "/",
            "//",
            "..",
            ".",
            "::",
            ":",
            "#",
            "?",
            "%20",
            "%",
            "\\",
            "@",
            "w=1",
            "C:",
            "\n",
            "\0",
        ),
        *("zip", "simplecache", "://", "s3://b", "s3:/", "http://h", "HTTPS://h", "file://", "file:/", "memory://"),
    ]
)
WRITTEN = st.one_of(st.none(), st.text(), st.lists(PIECES, max_size=6).map("".join))


def one_by_one(uris: list[str | None], folder: str) -> list[str | None]:
    def of(uri: str) -> str:
        try:
            found = absolute(uri, folder)
            found.encode()
        except ValueError:
            return uri
        return found

    return [None if uri is None else of(uri) for uri in uris]


@given(st.lists(WRITTEN, max_size=12), st.sampled_from(FOLDERS), st.integers(0, 12))
def test_a_column_is_what_its_uris_are_one_by_one(uris: list[str | None], folder: str, cut: int) -> None:
    column = pa.chunked_array([uris[:cut], uris[cut:]], pa.string())
    found = absolute_all(column, folder)
    assert found.type == column.type
    assert found.to_pylist() == one_by_one(uris, folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_odd_ones_among_many(folder: str) -> None:
    odd = [
        "./a.jpg",
        "file:///a%20b",
        "photos\\1.jpg",
        "S3://b/k",
        "~/x",
        "a//b",
        None,
        "/x/../y",
        "a:b",
        "#1?.png",
        "",
    ]
    uris = [f"img/{number}.jpg" for number in range(1000)] + odd * 2 + [f"s3://b/{number}" for number in range(1000)]
    assert absolute_all(pa.chunked_array([uris], pa.string()), folder).to_pylist() == one_by_one(uris, folder)


def test_nothing_and_nulls() -> None:
    for uris in ([], [None, None]):
        assert absolute_all(pa.chunked_array([uris], pa.string()), "/data").to_pylist() == uris
