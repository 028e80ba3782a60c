"""What a manifest's labels are like."""

from pathlib import Path

import pyarrow as pa
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.imports.label_report import count_labels, report
from raypipe.schema import MANIFEST

LISTS = [["boat", "water"]] * 4 + [["water"]] * 9 + [["Dog"], ["dog"], [], None, ["cat", "unicorn"]]
CLASSES = ("boat", "cat", "dog", "Dog", "water")


def chunks(lists: list[list[str] | None], size: int) -> list[pa.ChunkedArray]:
    kind = MANIFEST.field("labels").type
    return [pa.chunked_array([pa.array(lists[start : start + size], kind)]) for start in range(0, len(lists), size)]


def test_counts_do_not_depend_on_the_parts() -> None:
    whole, parts = (count_labels(chunks(LISTS, size), CLASSES) for size in (100, 3))
    assert (whole.images, whole.unlabelled, whole.empty) == (18, 1, 1)
    assert (parts.images, parts.unlabelled, parts.empty) == (18, 1, 1)
    assert whole.counts == parts.counts
    assert (whole.together == parts.together).all()
    assert whole.together[0].tolist() == [4, 0, 0, 0, 4]


def test_what_is_worth_a_look() -> None:
    text = report(count_labels(chunks(LISTS, 100), CLASSES))
    assert "100% of the 4 images of boat have water, too" in text
    assert "dog and Dog" in text or "Dog and dog" in text
    assert "cat: 1" in text
    assert "is no class" in text.split("unicorn", 1)[1].splitlines()[0]


def test_a_slip_may_mean_the_same() -> None:
    text = report(count_labels(chunks([["rust"], ["rust"], ["rsut"]], 100), ("rsut", "rust")))
    assert "Names that may mean the same:\n  rsut and rust" in text


def test_the_command(tmp_path: Path) -> None:
    rows = [{"image_id": str(i), "image_uri": f"/{i}.jpg", "labels": names} for i, names in enumerate(LISTS)]
    write_manifest(Manifest.from_rows(rows, CLASSES), str(tmp_path / "m"), rows_per_part=4)
    words = ["labels", str(tmp_path / "m"), "--draft-map", str(tmp_path / "map.csv")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "18 images, 5 classes" in done.output
    lines = (tmp_path / "map.csv").read_text().splitlines()
    assert lines[:2] == ["name,new,images", "water,water,13"]
    assert "dog,Dog,1" in lines
