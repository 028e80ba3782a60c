"""Label Studio's export: what was exported as tasks comes back as it was; corrections, and what can't be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_rows import CLASSES, MASKS, make_rows

from raypipe import storage, uri
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.formats.label_studio.brush import encode_brush
from raypipe.formats.label_studio.read import import_label_studio
from raypipe.formats.registry import FORMATS


def brush(label: str, pixels: Any) -> dict[str, Any]:
    region = np.array(pixels, bool)
    return {
        "type": "brushlabels",
        "original_height": region.shape[0],
        "original_width": region.shape[1],
        "value": {"format": "rle", "rle": encode_brush(region), "brushlabels": [label]},
    }


def annotation(*results: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(results), "was_cancelled": False} | changes


@pytest.fixture
def manifest(tmp_path: Path, jpeg: bytes) -> Manifest:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    rows = [
        {"image_id": "a", "image_uri": f"{tmp_path}/a.jpg", "labels": ["cat"]},
        {"image_id": "b", "image_uri": "s3://bucket/b.jpg", "labels": [], "mask_uri": "old.png", "supervision": "weak"},
    ]
    return Manifest.from_rows(rows, ["cat", "dog"])


def run(folder: Path, manifest: Manifest, *tasks: Any) -> dict[str, dict[str, Any]]:
    (folder / "export.json").write_text(json.dumps(tasks))
    merged, _ = import_label_studio(str(folder / "export.json"), manifest, masks=str(folder / "masks"))
    return {row["image_id"]: row for row in merged.table.to_pylist()}


def mask_of(row: dict[str, Any]) -> list[list[int]]:
    return decode_mask(storage.read_bytes(row["mask_uri"])).tolist()


def test_exported_tasks_come_back_as_they_were(tmp_path: Path) -> None:
    """A project in which every prediction was accepted."""
    format_ = FORMATS["labelstudio"](CLASSES)
    tasks = [json.loads(format_.render(row).items[0].data) for row in make_rows()]
    for task in tasks:
        task["annotations"] = [annotation(*task.pop("predictions")[0]["result"])]
    rows = [{"image_id": row.image_id, "image_uri": row.image_uri, "labels": []} for row in make_rows()]
    rows[2]["image_uri"] = str(tmp_path / "empty.png")  # without regions, the image says how large the mask is
    storage.write_bytes_atomic(
        rows[2]["image_uri"], FORMATS["mmseg"](CLASSES).render(make_rows()[2]).files["ann_dir/val/empty.png"]
    )
    found = run(tmp_path, Manifest.from_rows(rows, CLASSES), *tasks)
    for image_id, mask in MASKS.items():
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(found[image_id]["mask_uri"])), mask)
        assert found[image_id]["supervision"] == "mask"


def test_the_last_annotation_counts_and_cancelled_ones_do_not(manifest: Manifest, tmp_path: Path) -> None:
    cat, dog, ignored = brush("cat", [[1, 1, 0]]), brush("dog", [[0, 1, 0]]), brush("ignore", [[0, 0, 1]])
    task = {
        "data": {"image": "s3://bucket/b.jpg"},
        "annotations": [
            annotation(cat, {"type": "choices", "value": {}}, dog, ignored, updated_at="2026-02-01"),
            annotation(dog, updated_at="2026-01-01"),
            annotation(updated_at="2026-03-01", was_cancelled=True),
        ],
    }
    untouched = {"data": {"image_id": "a"}, "annotations": []}
    found = run(tmp_path, manifest, task, untouched)
    assert mask_of(found["b"]) == [[1, 2, 255]]
    assert (found["b"]["supervision"], found["b"]["labels"]) == ("mask", [])
    assert (found["a"]["mask_uri"], found["a"]["supervision"]) == (None, None)


def test_an_empty_annotation_is_all_background(manifest: Manifest, tmp_path: Path) -> None:
    found = run(tmp_path, manifest, {"data": {"image_id": "a"}, "annotations": [annotation()]})
    mask = np.array(mask_of(found["a"]))
    assert mask.shape == (61, 83)
    assert not mask.any()


def test_the_command(manifest: Manifest, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from raypipe.cli import app
    from raypipe.data.parts import read_manifest, write_manifest

    write_manifest(manifest, str(tmp_path / "m.parquet"))
    (tmp_path / "export.json").write_text(
        json.dumps([{"data": {"image_id": "a"}, "annotations": [annotation(brush("dog", [[1]]))]}])
    )
    words = ["import", "labelstudio", str(tmp_path / "export.json"), str(tmp_path / "m.parquet")]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "new/n.parquet")], catch_exceptions=False)
    assert "2 images, 2 classes" in result.stdout
    row = read_manifest(str(tmp_path / "new/n.parquet")).table.to_pylist()[0]
    assert uri.absolute(row["mask_uri"]) == f"{tmp_path}/new/masks/a.png"
    assert mask_of(row) == [[2]]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, r"task 0 \(counted from 0\): expected 'data' of type dict, got 'None'"),
        ({"data": {"image": "x"}, "annotations": [annotation()]}, "'x' belongs to no row of the manifest"),
        ({"data": {"image_id": ["a"]}, "annotations": [annotation()]}, "belongs to no row of the manifest"),
        ({"data": {"image_id": "a"}}, "expected 'annotations' of type list, got 'None'"),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation({"type": "polygonlabels"})]},
            "paint it with the brush",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cat", [[1]]) | {"image_rotation": 90})]},
            "turn it",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cow", [[1]]))]},
            r"task 0 \(counted from 0\): unknown label 'cow'",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cat", [[1]]), brush("dog", [[1, 1]]))]},
            "pictures of different sizes",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cat", [[1]]) | {"original_width": 10**9})]},
            "pixels; allowed are 1 to",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cat", [[1]]) | {"original_width": 2})]},
            "expected run lengths of 8 words of 8 bits, RGBA of 2 x 1",
        ),
        (
            {"data": {"image_id": "a"}, "annotations": [annotation(brush("cat", [[1]]) | {"value": {"rle": []}})]},
            "expected 'brushlabels' of type list, got 'None'",
        ),
    ],
)
def test_what_cannot_be_read(manifest: Manifest, tmp_path: Path, task: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, manifest, task)


def test_a_task_that_cannot_be_read_is_left_out_and_said(manifest: Manifest, tmp_path: Path) -> None:
    good = {"data": {"image_id": "a"}, "annotations": [annotation(brush("dog", [[1]]))]}
    bad = [
        {"data": {"image_id": "b"}, "annotations": [annotation({"type": "polygonlabels"})]},
        {"data": {"image_id": "another"}, "annotations": [annotation(brush("dog", [[1]]))]},
        {"data": {"image_id": "b"}, "annotations": [annotation(brush("cat", [[1]]) | {"image_rotation": 90})]},
        None,
        {"data": {"image_id": "b"}},
    ]
    (tmp_path / "export.json").write_text(json.dumps([*bad[:2], good, *bad[2:]]))
    merged, skipped = import_label_studio(str(tmp_path / "export.json"), manifest, masks=str(tmp_path / "masks"))
    rows = merged.table.to_pylist()
    assert mask_of(rows[0]) == [[2]]
    assert rows[1]["mask_uri"] == "old.png"
    assert {reason: len(names) for reason, names in skipped.items()} == {
        "tasks that can't be read": 4,
        "masks that belong to no row of the manifest": 1,
    }


def test_other_exports_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no list of tasks"):
        import_label_studio(str(tmp_path / "export.json"), manifest, masks="masks")
