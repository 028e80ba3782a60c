import pytest

from raypipe.containers.place import Cell, Member, cell_uri, content_type, member_uri, split_place


def test_members_and_cells_come_back() -> None:
    uri = member_uri("s3://bucket/a#b.tar", 1536, 10234, content="jpg")
    assert uri == "s3://bucket/a#b.tar#offset=1536&length=10234&type=jpg"
    assert split_place(uri) == ("s3://bucket/a#b.tar", Member(1536, 10234))
    assert content_type(uri) == "jpg"
    uri = cell_uri("/data/p.parquet", "a & b/ü.bytes", 17, group=3)
    assert split_place(uri) == ("/data/p.parquet", Cell("a & b/ü.bytes", 17))
    assert content_type(uri) is None


def test_what_may_be_left_out() -> None:
    assert split_place("a.tar#offset=0&length=5") == ("a.tar", Member(0, 5))
    assert split_place("p.parquet#column=image.bytes&row=0") == ("p.parquet", Cell("image.bytes", 0))


def test_an_ending_that_is_none_is_left_out() -> None:
    assert member_uri("a.tar", 0, 1, content="we ird&x=1") == "a.tar#offset=0&length=1"


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "cat #1.jpg",
        "#offset=1&length=2",
        "a.tar#offset=-1&length=2",
        "a.tar#offset=1&length=2.jpg",
        "a.tar#offset=1",
        "a.tar#length=2&offset=1",
        "a.parquet#column=&row=1",
        "a.parquet#column=image&row=x",
        "a.tar#offset=1&length=99999999999999999999",
        "a.tar#offset=1&length=2\n",
    ],
)
def test_other_names_are_files(name: str) -> None:
    assert split_place(name) == (name, None)
    assert content_type(name) is None
