"""What rows are called, for ever."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.imports.account import Account
from raypipe.imports.ids import make_ids, make_unique


@pytest.mark.parametrize(
    ("own", "place", "root", "expected"),
    [
        (None, "/photos/a.jpg", "/photos", "a.jpg"),
        (None, "/photos/sub/a.b.jpg", "/photos", "sub/a.b.jpg"),
        (None, "/photos/sub/a.jpg", "/photos/", "sub/a.jpg"),
        (None, "/photos2/a.jpg", "/photos", "/photos2/a.jpg"),
        (None, "/elsewhere/a.jpg", "/photos", "/elsewhere/a.jpg"),
        (None, "s3://bucket/p/shot #7 100%.png", "s3://bucket/p", "shot #7 100%.png"),
        (None, "s3://other/p/a.png", "s3://bucket/p", "s3://other/p/a.png"),
        (None, "https://host/p/a%20b.jpg", "https://host/p", "a b.jpg"),
        (None, "https://host/p/a.jpg", "/photos", "https://host/p/a.jpg"),
        ("007", "/photos/a.jpg", "/photos", "007"),
        ("1e3", "/photos/a.jpg", "/photos", "1e3"),
        ("null", "/photos/a.jpg", "/photos", "null"),
        ("2007_000032", "/photos/a.jpg", "/photos", "2007_000032"),
        ("", "/photos/a.jpg", "/photos", "a.jpg"),
        ("  ", "/photos/a.jpg", "/photos", "a.jpg"),
        (None, "/photos/猫 1.JPG", "/photos", "猫 1.JPG"),
    ],
)
def test_convention_ids(own: str | None, place: str, root: str, expected: str) -> None:
    assert make_ids([own], [place], root=root, ids="path") == [expected]


PATHS = st.lists(st.sampled_from(["a.jpg", "b.jpg", "a.png", "x/a.jpg", "y/a.jpg", "y/b"]), min_size=1, unique=True)


@settings(deadline=None, derandomize=True)
@given(PATHS, PATHS)
def test_an_id_never_depends_on_other_rows(first: list[str], others: list[str]) -> None:
    """A photograph that is added renames nothing."""

    def ids(paths: list[str]) -> list[str]:
        uris = [f"/photos/{path}" for path in paths]
        return make_unique(make_ids([None] * len(uris), uris, root="/photos", ids="path"), uris, Account())

    alone = dict(zip(first, ids(first), strict=True))
    every = list(dict.fromkeys([*others, *first]))
    together = dict(zip(every, ids(every), strict=True))
    assert all(together[path] == name for path, name in alone.items())


def test_stems_for_who_wants_them() -> None:
    uris = ["/photos/sub/a.b.jpg", "/photos/c.png"]
    assert make_ids([None, "7"], uris, root="/photos", ids="stem") == ["a.b", "c"]
    assert make_ids([None] * 2, [uris[0]] * 2, root="/photos", ids="stem") == ["a.b", "a.b"]
    with pytest.raises(ValueError, match=r"1 file name is of several images: 'a'.*leave out --ids stem"):
        make_ids([None] * 2, ["/photos/x/a.jpg", "/photos/y/a.jpg"], root="/photos", ids="stem")


@pytest.mark.parametrize(
    ("ids", "images", "expected"),
    [
        ("ab", "12", ["a", "b"]),
        ("aa", "11", ["a", "a"]),
        ("aa", "12", ["a", "a (2)"]),
        ("aaa", "123", ["a", "a (2)", "a (3)"]),
        ("aaaa", "1212", ["a", "a (2)", "a", "a (2)"]),
        ("aaaaa", "12331", ["a", "a (2)", "a (3)", "a (3)", "a"]),
        (["a (2)", "a", "a"], "312", ["a (2)", "a", "a (3)"]),
        (["a", "a", "a (2)"], "123", ["a", "a (3)", "a (2)"]),
        (["a", "a", "a (2)", "a (2)"], "1234", ["a", "a (3)", "a (2)", "a (2) (2)"]),
        (["a", "b", "a", "b"], "1221", ["a", "b", "a (2)", "b (2)"]),
    ],
)
def test_ids_of_several_images_get_numbers(ids: list[str], images: str, expected: list[str]) -> None:
    account = Account()
    assert make_unique(list(ids), list(images), account) == expected
    assert bool(account.lines) == (expected != list(ids))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["a", "a (2)", "b"]), st.sampled_from("1234")), min_size=1, max_size=12))
def test_an_id_is_of_one_image(rows: list[tuple[str, str]]) -> None:
    ids, images = [own for own, _ in rows], [image for _, image in rows]
    found = make_unique(ids, images, Account())
    pairs = set(zip(found, zip(ids, images, strict=True), strict=True))
    assert len(pairs) == len({new for new, _ in pairs}) == len(set(rows))


def test_many_images_of_one_id_take_no_time() -> None:
    number = 100_000
    assert make_unique(["a"] * number, [str(k) for k in range(number)], Account())[-1] == f"a ({number})"
