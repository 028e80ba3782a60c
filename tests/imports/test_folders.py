"""The file that a name stands for."""

import unicodedata
from pathlib import Path

import pytest
from import_cases import mark_folder

from raypipe import storage
from raypipe.imports.folders import Folders

FILES = (
    *("a.jpg", "b.jpg", "b.png", "c.d.jpeg", "sub/a.jpg", "sub/e.JPG", "Straße 1.jpg", "noending", "table.csv"),
    *("shot #7.png", "what?.webp", "100%.png", "a+b.png", "a%20b.png"),
)


@pytest.fixture(params=["listed", "by folder"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Folders:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = Folders()
    if request.param == "listed":
        found.add_tree(str(tmp_path), FILES)
    return found


@pytest.mark.parametrize(
    ("wanted", "any_ending", "expected"),
    [
        ("a.jpg", False, ["a.jpg"]),
        ("a", False, []),
        ("a", True, ["a.jpg"]),
        ("b", True, ["b.jpg", "b.png"]),
        ("b.png", True, ["b.png"]),
        ("c.d", True, ["c.d.jpeg"]),
        ("c", True, []),
        ("sub/e", True, ["sub/e.JPG"]),
        ("sub/e.jpg", False, []),
        ("table", True, []),
        ("table.csv", True, ["table.csv"]),
        ("noending", False, ["noending"]),
        ("sub", True, []),
        ("shot #7", True, ["shot #7.png"]),
        ("what?.webp", False, ["what?.webp"]),
        ("100%", True, ["100%.png"]),
        ("a+b.png", False, ["a+b.png"]),
        ("a%20b.png", False, ["a%20b.png"]),
        ("a b.png", False, []),
        ("absent/a.jpg", True, []),
        ("a.jpg/b.jpg", False, []),
    ],
)
def test_find(folders: Folders, tmp_path: Path, wanted: str, any_ending: bool, expected: list[str]) -> None:
    found = folders.find(f"{tmp_path}/{wanted}", any_ending=any_ending)
    assert found == [f"{tmp_path}/{name}" for name in expected]


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("A.JPG", "a.jpg"),
        ("straße 1.jpg", "Straße 1.jpg"),
        ("b.jpeg", "b.jpg"),
        ("sup/e.JPG", "sub/e.JPG"),
        ("sup/g.JPG", "sub"),
        ("sub/b.png", "b.png"),
        ("sub/f.JPG", "sub/e.JPG"),
        ("sub/E.jpg", "sub/e.JPG"),
        ("sub/sub/a.jpg", "a.jpg"),
        ("zzzzzz", None),
    ],
)
def test_nearest(folders: Folders, tmp_path: Path, wanted: str, nearest: str | None) -> None:
    folders.list_all([str(tmp_path), f"{tmp_path}/sub"])
    found = folders.nearest(f"{tmp_path}/{wanted}")
    assert found == (None if nearest is None else f"{tmp_path}/{nearest}")


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_folders_and_files(tmp_path: Path, there: str, asked: str) -> None:
    def form(kind: str, text: str) -> str:
        return unicodedata.normalize(kind, text)  # type: ignore[arg-type]

    place = tmp_path / form(there, "été") / form(there, "März") / form(there, "café.jpg")
    place.parent.mkdir(parents=True)
    place.touch()
    wanted = f"{tmp_path}/{form(asked, 'été')}/{form(asked, 'März')}/{form(asked, 'café.jpg')}"
    assert Folders().find(wanted, any_ending=False) == [str(place)]
    assert Folders().find(wanted.removesuffix(".jpg"), any_ending=True) == [str(place)]


def test_on_a_store(bucket: str) -> None:
    mark_folder(f"{bucket}/p/")
    for name in ("p/shot #7.png", "p/what?.webp", "p/100%.png", "p/a+b é.png", "p/x/1.jpg"):
        storage.write_bytes_atomic(f"{bucket}/{name}", b"x")
    folders = Folders()
    for name in ("shot #7.png", "what?.webp", "100%.png", "a+b é.png", "x/1.jpg"):
        assert folders.find(f"{bucket}/p/{name}", any_ending=False) == [f"{bucket}/p/{name}"]
    assert folders.find(f"{bucket}/p/{unicodedata.normalize('NFD', 'a+b é')}", any_ending=True) == [
        f"{bucket}/p/a+b é.png"
    ]
    assert folders.of(f"{bucket}/p").folders == {"x"}
    assert "p" not in folders.of(f"{bucket}/p").files
    assert folders.nearest(f"{bucket}/p/shot 7.png") == f"{bucket}/p/shot #7.png"
    assert folders.find(f"{bucket}/q/1.jpg", any_ending=True) == []
