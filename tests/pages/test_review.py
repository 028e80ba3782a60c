"""The review queue of a few made-up masks; no Ray."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stream_outputs import write_masks

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.formats.label_studio.read import import_label_studio
from raypipe.outputs import load
from raypipe.pages.review import QUEUE_FILE, rank, reviewable_rows, run_review
from raypipe.pipelines.context import Context
from raypipe.results import Decision
from raypipe.schema import REVIEW
from raypipe.stages.encode import sums_of_classes

CLASSES = ("cat", "dog")
IMAGES = {  # labels, columns of the mask (of 10) that are cat and dog, predicted IoU
    "sure": (["cat"], 4, 0, 0.9),
    "doubtful": (["cat"], 4, 0, 0.3),
    "small": (["cat"], 1, 0, 0.3),
    "rare": (["cat", "dog"], 2, 2, 0.5),
    "missing": (["dog"], 0, 0, 0.5),
    "unlabelled": ([], 0, 0, 1.0),
    "true": (["cat"], 4, 0, 0.1),
}

WALK = Decision(refinement="walk", judge="objective", kept=False, reason="lower", num_images=64)


@pytest.fixture
def masks(tmp_path: Path) -> Artifact:
    """A folder of masks in two shards."""
    rows = []
    for image_id, (_, cat, dog, predicted_iou) in IMAGES.items():
        mask = np.zeros((4, 10), np.uint8)
        mask[:, :cat], mask[:, cat : cat + dog] = 1, 2
        confidence = np.full(mask.shape, 51, np.uint8)
        sums = sums_of_classes(mask, confidence)
        encoded = {"mask": encode_png(mask), "confidence": encode_png(confidence), "predicted_iou": predicted_iou}
        rows.append({"image_id": image_id, "height": 4, "width": 10, **encoded, **sums})
    return write_masks(str(tmp_path / "masks"), rows, rows_per_shard=3)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A run of these images; one photograph is gone."""
    for image_id in [*IMAGES][1:]:
        Image.new("RGB", (10, 4), "green").save(tmp_path / f"{image_id}.png")
    rows = [
        {
            "image_id": image_id,
            "image_uri": str(tmp_path / f"{image_id}.png"),
            "labels": labels,
            "split": "train",
            "supervision": "mask" if image_id == "true" else None,
        }
        for image_id, (labels, *_) in IMAGES.items()
    ]
    config = load_config("", ["manifest=m", f"out={tmp_path / 'out'}"])
    return Context(config, Manifest.from_rows(rows, CLASSES))


def expected() -> dict[str, float]:
    cat = sum(cat for _, cat, _, _ in IMAGES.values()) / 10
    return {
        "missing": 0.5 * 1,
        "rare": 0.5 * (0.2 / cat + 1),
        "doubtful": 0.7 * 0.4 / cat,
        "small": 0.7 * 0.1 / cat,
        "sure": 0.1 * 0.4 / cat,
    }


def test_ranked_by_hand_worked_gains(context: Context, masks: Artifact) -> None:
    queue, num_masks = rank(reviewable_rows(context, None), masks, classes=CLASSES, num_images=10)
    gains = expected()
    assert [row["image_id"] for row in queue] == sorted(gains, key=lambda name: -gains[name])
    assert [row["gain"] for row in queue] == pytest.approx(sorted(gains.values(), reverse=True), rel=1e-6)
    assert num_masks == 6  # all but the one whose true mask is given
    reasons = {row["image_id"]: row["reason"] for row in queue}
    assert reasons["missing"] == "Predicted IoU 0.50. Labelled dog, but its mask has none."
    assert reasons["doubtful"].replace("\u00a0", " ") == (
        "Predicted IoU 0.30. cat: 40 % of the image, 26.7 % of all that is masked cat."
    )


def test_the_first_of_many_are_the_same_whatever_the_shards(context: Context, masks: Artifact) -> None:
    whole = rank(reviewable_rows(context, None), masks, classes=CLASSES, num_images=10)[0]
    assert rank(reviewable_rows(context, None), masks, classes=CLASSES, num_images=2)[0] == whole[:2]


def test_only_small_columns_are_read_to_rank_and_then_the_masks_of_the_first(
    context: Context, masks: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    totalled: list[str] = []
    loaded: list[tuple[list[str], int]] = []
    read, read_columns = pq.ParquetFile.read, load.read_columns

    def spy(self: pq.ParquetFile, columns: list[str], **options: object) -> pa.Table:
        totalled.extend(columns)
        return read(self, columns=columns, **options)

    def spy_too(uri: str, names: list[str], *, rows: list[int]) -> load.Loaded:
        loaded.append((names, len(rows)))
        return read_columns(uri, names, rows=rows)

    monkeypatch.setattr(pq.ParquetFile, "read", spy)
    monkeypatch.setattr(load, "read_columns", spy_too)
    rank(reviewable_rows(context, None), masks, classes=CLASSES, num_images=1)
    assert set(totalled) == {"class_ids", "areas"}
    *ranked, last = loaded
    assert {name for names, _ in ranked for name in names} == {"class_ids", "areas", "predicted_iou"}
    assert sum(number for _, number in ranked) == 6
    assert last == (["height", "width", "mask", "confidence"], 1)


def test_gallery_table_and_tasks(context: Context, masks: Artifact, tmp_path: Path) -> None:
    folder, number = run_review(context, masks=masks, decisions=[WALK], num_images=5)
    assert number == 5
    table = pq.read_table(Path(folder, QUEUE_FILE))
    assert table.schema.equals(REVIEW)
    assert table["image_id"].to_pylist() == ["rare", "missing", "doubtful", "small", "sure"]
    for row in table.to_pylist():
        assert row["gain"] == pytest.approx(sum(row["parts"]))
    tasks = json.loads(Path(folder, "tasks-00000.json").read_text())
    assert [task["data"]["image_id"] for task in tasks] == table["image_id"].to_pylist()
    assert [task["data"]["rank"] for task in tasks] == [1, 2, 3, 4, 5]
    page = Path(folder, "index.html").read_text()
    assert page.count("<img ") == 9  # two each, but for the photograph that is gone
    assert "http://" not in page
    assert "beta 8 (rejected by the gate); refined by dCRF; seed 0" in page
    before = {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
    assert run_review(context, masks=masks, decisions=[WALK], num_images=5) == (folder, 5)
    assert {path: path.stat().st_mtime_ns for path in Path(folder).iterdir()} == before


def test_tasks_come_back_as_masks(context: Context, masks: Artifact, tmp_path: Path) -> None:
    """What Label Studio exports where the pre-annotation was accepted as it is."""
    folder, _ = run_review(context, masks=masks, decisions=[], num_images=100)
    tasks = json.loads(Path(folder, "tasks-00000.json").read_text())
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    manifest, _ = import_label_studio(str(tmp_path / "export.json"), context.manifest, masks=str(tmp_path / "back"))
    uris = {row["image_id"]: row["mask_uri"] for row in manifest.table.to_pylist()}
    mask = decode_mask(Path(uris["rare"]).read_bytes())
    assert mask[0].tolist() == [1, 1, 2, 2, 0, 0, 0, 0, 0, 0]


def test_other_masks_get_another_folder(context: Context, masks: Artifact) -> None:
    first, _ = run_review(context, masks=masks, decisions=[], num_images=100)
    assert run_review(context, masks=Artifact(masks.uri, "n"), decisions=[], num_images=100)[0] != first
    assert run_review(context, masks=masks, decisions=[], num_images=99)[0] != first
