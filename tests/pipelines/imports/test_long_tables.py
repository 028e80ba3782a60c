"""Tables of one tag a row become the manifest that a table of one image a row would be."""

import errno
import gzip
import json
import random
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from import_cases import Said, column, imported, make_image, run
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest
from raypipe.formats.draft import Draft
from raypipe.imports import images, long_tables
from raypipe.pipelines.imports import long_tables as import_long

ROWS = [
    ("a.jpg", "cat", 1.0),
    ("b.jpg", "dog", 1.0),
    ("a.jpg", "dog", 0.0),
    ("a.jpg", "tree", 0.3),
    ("b.jpg", "cat", 0.9),
    ("c.jpg", "dog", 0.0),
    ("a.jpg", "cat", 1.0),
    ("é#%+.jpg", "007", 1.0),
]


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "b", "c", "é#%+")):
        make_image(Path(f"{name}.jpg"), seed=number)


def write(rows: list[tuple[str, str, float]], name: str = "t.csv") -> None:
    lines = "".join(f"{image}, {label},{confidence}\n" for image, label, confidence in rows)
    Path(name).write_text("file_name,tag,confidence\n" + lines)


def labels_of(manifest: Manifest) -> dict[str, list[str] | None]:
    return dict(zip(column(manifest, "image_id"), column(manifest, "labels"), strict=True))


EXPECTED = {"a.jpg": ["cat", "tree"], "b.jpg": ["cat", "dog"], "c.jpg": [], "é#%+.jpg": ["007"]}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "semicolon", "jsonl", "parquet", "folder", "utf-16"])
def test_any_table(kind: str) -> None:
    write(ROWS)
    text = Path("t.csv").read_text()
    source = f"t.{kind}"
    options: list[str] = []
    if kind == "csv.gz":
        Path(source).write_bytes(gzip.compress(text.encode()))
    elif kind == "tsv":
        Path(source).write_text(text.replace(",", "\t"))
    elif kind == "semicolon":
        source = "s.csv"
        Path(source).write_text(text.replace(",", ";"))
    elif kind == "utf-16":
        source = "u.csv"
        Path(source).write_text(text, encoding="utf-16")
    elif kind == "jsonl":
        names = ("file_name", "tag", "confidence")
        Path(source).write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS))
    elif kind == "parquet":
        image, label, confidence = zip(*ROWS, strict=True)
        pq.write_table(pa.table({"image": image, "label": label, "score": confidence}), source)
    elif kind == "folder":
        source = "tables"
        Path(source).mkdir()
        write(ROWS[:3], "tables/1.csv")
        write(ROWS[3:], "tables/2.csv")
        options = ["--images", "."]
    manifest = imported("table", source, "--long", *options, "m.parquet")
    assert labels_of(manifest) == EXPECTED
    assert manifest.classes == ("007", "cat", "dog", "tree")
    assert not list(Path().glob("*scratch*"))


def test_what_is_left_out_is_counted() -> None:
    write(ROWS)
    said = run("table", "t.csv", "--long", "--min-confidence", "0.5", "m.parquet")
    assert "t.csv: 8 rows\none tag a row, of 4 images\n" in said
    assert "2 tags of confidence 0" in said
    assert "1 tag below" in said
    assert read_manifest("m.parquet").classes == ("007", "cat", "dog")


def test_an_image_with_unsure_tags_alone_is_none_that_somebody_has_looked_at() -> None:
    write([("a.jpg", "cat", 1.0), ("a.jpg", "dog", 0.3), ("b.jpg", "cat", 0.3), ("c.jpg", "cat", 0.0)])
    manifest = imported("table", "t.csv", "--long", "--min-confidence", "0.5", "m.parquet")
    assert labels_of(manifest) == {"a.jpg": ["cat"], "b.jpg": None, "c.jpg": []}


def test_two_names_of_an_image_are_one(tmp_path: Path) -> None:
    write([("a.jpg", "cat", 1.0), ("a", "dog", 1.0), ("b.jpg", "cat", 1.0)])
    said = run("table", "t.csv", "--long", "--images", ".", "m.parquet")
    assert "1 row names an image again with other labels: 'a.jpg'; they were joined\n" in said
    assert labels_of(read_manifest("m.parquet")) == {"a.jpg": ["cat", "dog"], "b.jpg": ["cat"]}


def test_names_are_merged_and_rare_ones_dropped() -> None:
    write(ROWS)
    Path("map.csv").write_text("name,new\ncat,pet\ndog,pet\ntree,\n")
    manifest = imported("table", "t.csv", "--long", "--map", "map.csv", "--min-images", "2", "m.parquet")
    assert labels_of(manifest) == {"a.jpg": ["pet"], "b.jpg": ["pet"], "c.jpg": [], "é#%+.jpg": []}


def test_a_suffix_makes_names_of_ids() -> None:
    write([(image.removesuffix(".jpg"), label, confidence) for image, label, confidence in ROWS])
    assert labels_of(imported("table", "t.csv", "--long", "--image-suffix", ".jpg", "m.parquet")) == EXPECTED


def test_a_missing_image_is_refused() -> None:
    write([*ROWS, ("d.jpg", "cat", 1.0)])
    with pytest.raises(
        Said, match=r"1 of 5 images can't be used: 'd\.jpg' isn't there; the nearest name is '.\.jpg'\."
    ):
        run("table", "t.csv", "--long", "m.parquet")
    assert not list(Path().glob("*scratch*"))


@pytest.mark.parametrize("target", ["m.parquet", "parts"])
def test_many_images_are_written_part_by_part(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(ROWS)
    few = imported("table", "t.csv", "--long", "few.parquet")
    monkeypatch.setattr(import_long, "MOST_ROWS", 2)
    monkeypatch.setattr(import_long, "BYTES_PER_PARTITION", 40)
    many = imported("table", "t.csv", "--long", target)
    assert labels_of(many) == labels_of(few)
    assert many.classes == few.classes
    uris = (dict(zip(column(one, "image_id"), column(one, "image_uri"), strict=True)) for one in (few, many))
    assert next(uris) == next(uris)
    assert "sample" in run("table", "t.csv", "--long", target)


def test_the_order_of_rows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_long, "MOST_ROWS", 2)
    monkeypatch.setattr(import_long, "BYTES_PER_PARTITION", 40)
    tables = []
    for seed in range(3):
        rows = ROWS.copy()
        random.Random(seed).shuffle(rows)
        write(rows)
        tables.append(imported("table", "t.csv", "--long", "m.parquet").table)
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,tag\na.jpg,cat\na.jpg,cat,dog\n", "Expected 2 columns, got 3"),
        (
            "file,tag,confidence\nb.jpg,cat,\n\na.jpg,cat,high\n",
            "t.csv, row 3 without empty ones, column 'confidence': 'high' is no number",
        ),
        ("photo,tag\na.jpg,cat\n", "--image-column"),
        ("photo,seen\na.jpg,cat\n", r"there are 'photo', 'seen'. It needs --label-column, too"),
        ("file,tag\n", "no rows"),
        ("file,tag\na.jpg,\n", "no image has a label"),
        ('file,tag\na.jpg,"cat,dog"\n', "one name or several"),
    ],
)
def test_tables_that_cannot_be_read(text: str, message: str) -> None:
    Path("t.csv").write_text(text)
    with pytest.raises(Said, match=message):
        run("table", "t.csv", "--long", "m.parquet")


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("file\uff0ctag\na.jpg\uff0ccat\n", "utf-8", r"none of the columns.*full-width comma \uff0c \(U\+FF0C\)"),
        ("file,tag\nb.jpg,dog\na.jpg\uff0ccat\n", "utf-8", r"Expected 2 columns, got 1.*full-width comma"),
        ("file;tag\nb.jpg;dog\na.jpg\uff1bcat\n", "utf-8", r"full-width semicolon \uff1b \(U\+FF1B\)"),
        ("file,tag\na.jpg,\xe9t\xe9\n", "cp1252", r"isn't utf-8\. Name its encoding, such as --encoding cp1252"),
        ("file,tag\n\xe9.jpg,cat\n", "cp1252", r"isn't utf-8\. Name its encoding, such as --encoding cp1252"),
    ],
)
@pytest.mark.parametrize("long", [["--long"], ["--label-column", "tag"]])
def test_texts_that_are_divided_or_encoded_otherwise(text: str, encoding: str, message: str, long: list[str]) -> None:
    Path("t.csv").write_bytes(text.encode(encoding))
    if "--long" not in long:
        message = message.replace("Expected 2 columns, got 1", "expected 2 cells").replace(r"8\. Name", "8.*Name")
    with pytest.raises(Said, match=f"(?s){message}"):
        run("table", "t.csv", *long, "m.parquet")


def test_a_folder_without_rights_is_named_as_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    write(ROWS)

    def denied(*_: object, scratch: str, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{scratch}/rows/00000/000000.arrow")

    monkeypatch.setattr(import_long, "gather_tables", denied)
    with pytest.raises(PermissionError, match=r"m\.parquet'$"):
        CliRunner().invoke(app, ["import", "table", "t.csv", "m.parquet", "--long"], catch_exceptions=False)


def test_the_sample_is_that_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose images are looked for doesn't depend on the partitions that they came by."""
    write(ROWS)
    monkeypatch.setattr(import_long, "MOST_ROWS", 2)
    monkeypatch.setattr(images, "SAMPLE", 2)
    monkeypatch.setattr(long_tables, "SAMPLE", 2)
    looked_for = set()
    for size in (40, 100, 10_000):
        monkeypatch.setattr(import_long, "BYTES_PER_PARTITION", size)
        gathered: list[list[str]] = []
        monkeypatch.setattr(import_long, "find_images", partial(note_sample, gathered))
        run("table", "t.csv", "--long", "m")
        looked_for.add(tuple(gathered[0]))
    assert len(looked_for) == 1
    assert len(next(iter(looked_for))) == 2


def note_sample(seen: list[list[str]], draft: Draft, **options: Any) -> Any:
    seen.append(draft.table["image_uri"].to_pylist())
    return images.find_images(draft, **options)


MERGED = ["--map", "map.csv", "--classes", "background, tree,cat,dog,007,cow"]


@pytest.mark.parametrize("most", [2, 1_000_000])
def test_classes_are_decided_alike_whatever_the_size(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """--classes are the names before --map, in their order; classes that no image has stay."""
    monkeypatch.setattr(import_long, "MOST_ROWS", most)
    write(ROWS)
    Path("map.csv").write_text("cat,pet\ndog,pet\n")
    manifest = imported("table", "t.csv", "--long", *MERGED, "m.parquet")
    assert manifest.classes == ("tree", "pet", "007", "cow")
    assert labels_of(manifest) == {"a.jpg": ["tree", "pet"], "b.jpg": ["pet"], "c.jpg": [], "é#%+.jpg": ["007"]}
    said = run("table", "t.csv", "--long", *MERGED, "m.parquet")
    assert "classes with fewer than 10 images: cow 0" in said
    with pytest.raises(Said, match=r"the label '007' isn't among the 3 classes of --classes"):
        run("table", "t.csv", "--long", "--classes", "tree,cat,dog", "m.parquet")
    write([*ROWS, ("a.jpg", "Background", 1.0)])
    with pytest.raises(Said, match="can't be a class"):
        run("table", "t.csv", "--long", "m.parquet")
    write([*ROWS, ("a.jpg", "Cat", 1.0), ("b.jpg", "\u200bcat\u00a0", 1.0)])
    assert "may mean the same: 'Cat' and 'cat'" in run("table", "t.csv", "--long", "m.parquet")


@pytest.mark.parametrize("most", [2, 1_000_000])
def test_a_slip_in_the_map_is_told(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_long, "MOST_ROWS", most)
    write([*ROWS, ("a.jpg", "rust", 1.0), ("b.jpg", "leaf rust", 1.0)])
    Path("map.csv").write_text("leaf rust,rsut\nrusty,rust\n")
    said = run("table", "t.csv", "--long", "--map", "map.csv", "m.parquet")
    assert "classes: 007, cat, dog, rsut, rust, tree\n" in said
    assert "1 name in the map that no row has: 'rusty'" in said
    assert "classes that may mean the same: 'rsut' and 'rust'" in said


def test_missing_images_of_the_sample_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_long, "MOST_ROWS", 2)
    write([*ROWS, ("d.jpg", "cat", 1.0)])
    manifest = imported("table", "t.csv", "--long", "--skip-missing", "m")
    assert labels_of(manifest) == EXPECTED
    assert "4 images" in run("table", "t.csv", "--long", "--skip-missing", "m")


def test_names_that_are_there_in_another_form_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample would find them; nobody would look for the others."""
    monkeypatch.setattr(import_long, "MOST_ROWS", 2)
    write([(unicodedata.normalize("NFD", image), label, confidence) for image, label, confidence in ROWS])
    with pytest.raises(Said, match="--check all"):
        run("table", "t.csv", "--long", "m")
    assert len(imported("table", "t.csv", "--long", "--check", "all", "m")) == 4
