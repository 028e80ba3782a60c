"""The one name under which a run's masks are found without raypipe."""

import json
from pathlib import Path

import duckdb
import fsspec
from stream_outputs import write_masks, write_quarantine

from raypipe.outputs.records import write_summary
from raypipe.pipelines.masks_file import find_masks_file, write_masks_file

SUMMARY = {"num_rows": 4, "num_finished": 3, "num_quarantined": 1, "num_computed": 4, "seconds": 1, "total_seconds": 1}


def test_it_names_the_masks_of_the_last_setting_alone(tmp_path: Path) -> None:
    rows = [{"image_id": name} for name in "abc"]
    assert find_masks_file(str(tmp_path)) is None
    for name in ("old", "new"):
        masks = write_masks(str(tmp_path / "masks" / name), rows, rows_per_shard=2)
        write_quarantine(masks.uri, {"d": ("DecodeImages", "broken")})
        write_summary(masks.uri, SUMMARY)
        uri = write_masks_file(str(tmp_path), masks, classes=("cat",))
    found = json.loads(Path(uri).read_text())
    assert find_masks_file(str(tmp_path)) == found["folder"] == str(tmp_path / "masks" / "new")
    assert (found["num_masks"], found["num_quarantined"], found["classes"]) == (3, 1, ["cat"])
    ids = duckdb.read_parquet(found["shards"]).order("image_id").select("image_id").fetchall()
    assert ids == [("a",), ("b",), ("c",)]
    assert duckdb.read_parquet(found["quarantine"]).select("image_id").fetchall() == [("d",)]


def test_it_is_found_in_a_bucket(bucket: str) -> None:
    masks = write_masks(f"{bucket}/run/masks/new", [{"image_id": "a"}])
    write_summary(masks.uri, SUMMARY)
    uri = write_masks_file(f"{bucket}/run", masks, classes=("cat",))
    with fsspec.open(uri) as file:
        found = json.load(file)
    (shard,) = found["shards"]
    assert shard.startswith(f"{bucket}/run/masks/new/shards/")
    assert fsspec.filesystem("s3").exists(shard)
