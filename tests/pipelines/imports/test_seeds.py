"""Seeds come in, by image: what doesn't fit is said, what is wrong is left out, and an import goes on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raypipe.artifacts import Artifact
from raypipe.cli import app
from raypipe.data.given_seeds import decode_seed
from raypipe.data.manifest import Manifest
from raypipe.data.parts import open_manifest, write_manifest
from raypipe.data.rows import Rows
from raypipe.outputs.imported import find_imported, load_imported
from raypipe.outputs.load import Load
from raypipe.pipelines.imports import seeds as module
from raypipe.pipelines.imports.seeds import import_seeds
from raypipe.schema import GIVEN_SEEDS
from raypipe.stages.base import Row, Stage
from raypipe.streams.collect import with_imported
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source

CLASSES = ("cat", "dog")


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    labels: dict[str, Any] = {"a": ["cat"], "b": ["cat", "dog"], "c": ["dog"], "none": [], "unlabelled": None}
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "labels": of} for name, of in labels.items()]
    write_manifest(Manifest.from_rows(rows, CLASSES), str(tmp_path / "manifest"), rows_per_part=2)
    return str(tmp_path / "manifest")


def seed(image_id: str, value: float = 0.5, *classes: str, **changes: object) -> dict[str, Any]:
    names = classes or ("cat",)
    maps = [value] * (4 * len(names))
    return {"image_id": image_id, "classes": list(names), "height": 2, "width": 2, "maps": maps, **changes}


def write(source: Path, *rows: dict[str, Any], name: str = "1") -> None:
    source.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), source / f"{name}.parquet")


@dataclass
class Take(Stage):
    """Reads seeds and nothing else."""

    reads = ("labels", *GIVEN_SEEDS.names)

    def process(self, _: Row) -> Row:
        return {}


def make_plan(load: Load) -> Plan:
    schema = pa.schema([("image_id", pa.string())])
    return Plan(name="p", takes=(load,), stages=(Take(),), schema=schema, classes=CLASSES)


def rows_of(out: str, manifest: str) -> dict[str, Row]:
    """What a stream gets of each image of a manifest."""
    load = load_imported(Artifact(out, "s"))
    plan = make_plan(load)
    rows = Rows(open_manifest(manifest).parts).select(["image_id", "labels"])
    source = Source.of(plan, rows, f"{out}-of-a-stream", run=1)
    found = {}
    for part in rows.parts:
        digests = source.wanted(part).select(["image_id", "row_digest"]).to_pylist()
        for table in source.cut(source.todo(part), rows_per_table=8):
            for row in table.to_pylist():
                (of_row,) = [each["row_digest"] for each in digests if each["image_id"] == row["image_id"]]
                found[row["image_id"]] = row | {"row_digest": of_row}
    return found


def test_every_row_of_the_manifest_stays_with_its_seeds_or_without(tmp_path: Path, manifest: str) -> None:
    source, out = tmp_path / "maps", str(tmp_path / "seeds")
    write(source, seed("a", 0.25), seed("b", 0.75, "dog", "cow"), seed("elsewhere"), seed("none", maps=[2.0] * 4))
    np.savez(source / "unlabelled.npz", classes=["cat"], maps=np.ones((1, 3, 5)))
    words = ["import", "seeds", str(source), manifest, out]
    said = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    for line in (
        f"{source}: maps of 4 images",
        "left out: 1 that break the contract, such as 'none': ValueError: expected values in [0, 1]",
        f"1 image that {manifest} lacks: they wait until it has them; such as 'elsewhere'",
        "1 image with labels has no maps: a run puts them into quarantine; such as 'c'",
        "1 image has no map of one of their labels: where it is, is unknown; such as 'b'",
        "not used: 1 class that",
        f"checkpoints.seeds={out}",
    ):
        assert line in said, said
    found = rows_of(out, manifest)
    assert set(found) == {"a", "b", "c", "none", "unlabelled"}
    np.testing.assert_array_equal(decode_seed(found["a"]), np.full((1, 2, 2), 0.25))
    assert found["b"]["seed_classes"] == ["dog", "cow"]
    assert decode_seed(found["unlabelled"]).shape == (1, 3, 5)
    assert found["c"]["seed"] is None
    assert found["c"]["error_stage"] is None
    assert (found["none"]["error_stage"], "expected values in" in found["none"]["error_reason"]) == (
        "ImportSeeds",
        True,
    )


def test_a_row_depends_on_its_own_maps(tmp_path: Path, manifest: str) -> None:
    """A source that grows, or is read from another file, changes the rows alone whose maps are others."""
    source, out = tmp_path / "maps", str(tmp_path / "seeds")
    digests = []
    for rows in (
        {"1": [seed("a"), seed("b")]},
        {"1": [seed("a")], "2": [seed("b"), seed("c", 0.5, "dog")]},
        {"1": [seed("b", 0.75), seed("a"), seed("c", 0.5, "dog")]},
    ):
        for old in source.glob("*"):
            old.unlink()
        for name, of_file in rows.items():
            write(source, *of_file, name=name)
        import_seeds(str(source), manifest, out)
        digests.append({name: row["row_digest"] for name, row in rows_of(out, manifest).items()})
        assert find_imported(out).digest == find_imported(out).digest
    first, grown, changed = digests
    assert {name for name in first if first[name] != grown[name]} == {"c"}
    assert {name for name in first if grown[name] != changed[name]} == {"b"}


def test_an_import_goes_on_where_it_was(tmp_path: Path, manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "maps", tmp_path / "seeds"
    write(source, seed("a"), name="1")
    write(source, seed("b"), name="2")
    read: list[str] = []
    real = module.read_seeds

    def reading(uri: str) -> Any:
        read.append(Path(uri).stem)
        if read == ["1", "2"]:
            raise ConnectionError("away")
        return real(uri)

    monkeypatch.setattr(module, "read_seeds", reading)
    with pytest.raises(ConnectionError):
        import_seeds(str(source), manifest, str(out))
    with pytest.raises(ValueError, match=r"has no seeds\.json: `raypipe import seeds SOURCE MANIFEST"):
        find_imported(str(out))
    import_seeds(str(source), manifest, str(out))
    assert read == ["1", "2", "2"]
    assert {name for name, row in rows_of(str(out), manifest).items() if row["seed"]} == {"a", "b"}
    files = {path: path.stat().st_mtime_ns for path in (out / "shards").rglob("*.parquet")}
    (source / "2.parquet").unlink()
    import_seeds(str(source), manifest, str(out))
    assert {name for name, row in rows_of(str(out), manifest).items() if row["seed"]} == {"a"}
    left = {path: path.stat().st_mtime_ns for path in (out / "shards").rglob("*.parquet")}
    assert left.items() < files.items()


def test_an_image_with_two_maps_has_none_unless_they_are_the_same(tmp_path: Path, manifest: str) -> None:
    source, out = tmp_path / "maps", str(tmp_path / "seeds")
    write(source, seed("a", 0.25), seed("b"), name="1")
    write(source, seed("a", 0.75), seed("b"), name="2")
    said = str(import_seeds(str(source), manifest, out))
    assert "left out: 1 that break the contract, such as 'a': it has several maps of the image" in said
    found = rows_of(out, manifest)
    assert found["b"]["seed"] is not None
    assert (found["a"]["seed"], found["a"]["error_stage"]) == (None, "ImportSeeds")


@pytest.mark.parametrize("second", [0.75, 0.25], ids=["other maps", "the same maps"])
def test_the_map_that_is_kept_is_there_after_the_next_import(tmp_path: Path, manifest: str, second: float) -> None:
    """No image took its maps from one of the files, or from neither, until the other was deleted."""
    source, out = tmp_path / "maps", str(tmp_path / "seeds")
    write(source, seed("a", 0.25), seed("b"), name="1")
    write(source, seed("a", second), name="2")
    write(source, seed("c", 0.5, "dog"), name="3")
    import_seeds(str(source), manifest, out)
    (source / "1.parquet").unlink()
    import_seeds(str(source), manifest, out)
    found = rows_of(out, manifest)
    assert decode_seed(found["a"])[0, 0, 0] == second
    assert found["b"]["seed"] is None


def test_a_file_that_cant_be_read_is_named_and_the_others_are_used(tmp_path: Path, manifest: str) -> None:
    source, out = tmp_path / "maps", str(tmp_path / "seeds")
    write(source, seed("a"))
    (source / "2.parquet").write_bytes(b"PAR1 and no more")
    assert "'2.parquet': " in str(import_seeds(str(source), manifest, out))
    assert rows_of(out, manifest)["a"]["seed"] is not None


def test_where_nothing_can_be_used_nothing_is_imported(tmp_path: Path, manifest: str) -> None:
    write(tmp_path / "maps", seed("a", 2.0))
    with pytest.raises(ValueError, match=r"has no maps that could be used; the first: .*expected values in \[0, 1\]"):
        import_seeds(str(tmp_path / "maps"), manifest, str(tmp_path / "seeds"))
    assert not (tmp_path / "seeds/seeds.json").exists()


def test_seeds_of_two_makers_go_into_two_folders(tmp_path: Path, manifest: str) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, seed("a"))
    import_seeds(str(tmp_path / "one"), manifest, str(tmp_path / "seeds"))
    with pytest.raises(ValueError, match=r"has the seeds of .*one, these are of .*other: .* name another one"):
        import_seeds(str(tmp_path / "other"), manifest, str(tmp_path / "seeds"))
    import_seeds(str(tmp_path / "other"), manifest, str(tmp_path / "more"))
    assert find_imported(str(tmp_path / "seeds")).digest != find_imported(str(tmp_path / "more")).digest


def test_shards_are_cut_and_none_is_lost(tmp_path: Path, manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES_PER_SHARD", 16)
    monkeypatch.setattr(module, "FILES_PER_UNIT", 2)
    source, out = tmp_path / "maps", tmp_path / "seeds"
    source.mkdir()
    for name in "abc":
        np.savez(source / f"{name}.npz", classes=["cat"], maps=np.full((1, 3, 3), 0.5))
    import_seeds(str(source), manifest, str(out))
    assert len(list((out / "shards").rglob("*.parquet"))) == 3
    assert len(list((out / "units").glob("*.parquet"))) == 2
    assert len(list((out / "index").rglob("*.parquet"))) == 1
    assert {name for name, row in rows_of(str(out), manifest).items() if row["seed"]} == {"a", "b", "c"}


def test_rows_outside_of_a_stream(tmp_path: Path, manifest: str) -> None:
    write(tmp_path / "maps", seed("a", 0.25))
    out = str(tmp_path / "seeds")
    import_seeds(str(tmp_path / "maps"), manifest, out)
    table = with_imported(pa.table({"image_id": ["a", "c"]}), make_plan(load_imported(find_imported(out))))
    rows = {row["image_id"]: row for row in table.to_pylist()}
    np.testing.assert_array_equal(decode_seed(rows["a"]), np.full((1, 2, 2), 0.25))
    assert rows["c"]["seed"] is None
    assert set(GIVEN_SEEDS.names) <= set(table.column_names)
