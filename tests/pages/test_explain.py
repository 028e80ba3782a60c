"""Explanations of a run that was made in this process, by its stages; no Ray."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream_outputs import write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import encode_cam
from raypipe.data.checkpoints import Task, read_metadata
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.rows import ONLY_PART
from raypipe.outputs import load
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.pages.explain import explain, manifest_row, write_explanation
from raypipe.pages.finished import NotFinished, find_masks
from raypipe.pages.review import rank, reviewable_rows, run_review
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_plan
from raypipe.pipelines.seeds import seeds_plan
from raypipe.schema import ROW_DIGEST, SEEDS
from raypipe.stages.base import run_stages
from raypipe.streams.collect import collect

IMAGES = {"photo_1": ["cat", "dog"], "photo_2": ["dog"], "empty": [], "broken": ["cat"], "late": ["cat"]}
"""The last has no mask yet."""


@pytest.fixture
def context(tmp_path: Path, jpeg: bytes, classifier_uri: str, affinity_uri: str) -> Context:
    """A config with given networks, and its images."""
    rows = []
    for image_id, labels in IMAGES.items():
        (tmp_path / f"{image_id}.jpg").write_bytes(b"nothing" if image_id == "broken" else jpeg)
        rows.append({"image_id": image_id, "image_uri": str(tmp_path / f"{image_id}.jpg"), "labels": labels})
    rows[0]["mask_uri"] = str(tmp_path / "truth.png")
    (tmp_path / "truth.png").write_bytes(encode_png(np.ones((61, 83), np.uint8)))
    overrides = [
        "manifest=m",
        f"out={tmp_path / 'out'}",
        f"checkpoints.classifier={classifier_uri}",
        f"checkpoints.affinity={affinity_uri}",
        "cams.scales=[1.0]",
        "walk.num_steps=20",
        "walk.alpha=1",
        "refinement.gate=off",
        "images.max_side=64",
    ]
    return Context(
        load_config("", overrides),
        Manifest.from_rows([row | {"split": "train"} for row in rows], ("cat", "dog")),
    )


@pytest.fixture
def masks(context: Context) -> str:
    return write_masks(context)


def write_masks(context: Context) -> str:
    """The run's masks, all but the last image's; one image is in quarantine."""
    plan = masks_plan(context, maps=network(context, "classifier"), affinity=network(context, "affinity"))
    for stage in plan.stages:
        stage.setup("cpu")
    done = run_stages(plan.stages, collect(context.rows(None)).slice(0, 4))
    for name, value in ((ROW_DIGEST, "r"), (PART, ONLY_PART), (PART_TODO, 5)):
        done = done.append_column(name, pa.array([value] * 4))
    folder = plan.artifact(context.config.out).uri
    writer = ShardWriter(folder=folder, schema=plan.schema.append(pa.field(ROW_DIGEST, pa.string())), run=1)
    writer.write(done.slice(0, 2))
    writer.write(done.slice(2))
    return folder


def network(context: Context, task: Task) -> Artifact:
    uri = getattr(context.config.checkpoints, task)
    return Artifact(uri, read_metadata(uri, task=task)["digest"])


def stored(masks: str, image_id: str) -> dict[str, object]:
    for path in Path(masks).glob("attempts/*/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["image_id"] == image_id:
                found: dict[str, object] = row
                return found
    raise AssertionError(image_id)


@pytest.mark.parametrize("image_id", ["photo_1", "photo_2", "empty"])
def test_the_mask_is_the_one_that_the_run_wrote(context: Context, masks: str, image_id: str) -> None:
    found = explain(find_masks(context), manifest_row(context, image_id))
    assert ("walk.beta", json.dumps(context.config.walk.beta)) in found.settings
    assert "seeds" not in dict(found.provenance), "the run has written none"
    row = stored(masks, image_id)
    assert found.mask_png == row["mask"]
    assert found.num_different == 0
    assert found.predicted_iou == row["predicted_iou"]
    assert np.array_equal(found.confidence, decode_mask(row["confidence"]))  # type: ignore[arg-type]
    assert found.mask.shape == (61, 83)


def test_masks_that_a_gpu_refined_are_refined_again_as_there(context: Context) -> None:
    refinement = context.config.refinement.model_copy(update={"device": "gpu"})
    on_gpu = replace(context, config=context.config.model_copy(update={"refinement": refinement}))
    row = stored(write_masks(on_gpu), "photo_1")
    found = explain(find_masks(on_gpu), manifest_row(on_gpu, "photo_1"))
    assert found.mask_png == row["mask"]
    assert found.trimap.shape == (6, 8)
    assert any("refinement.device=gpu" in note for note in found.notes)


def test_the_walk_starts_at_the_maps_and_ends_in_the_mask_before_refinement(context: Context, masks: str) -> None:
    found = explain(find_masks(context), manifest_row(context, "photo_1"))
    assert [state.num_steps for state in found.walk] == [0, 1, 4, 16, 20]
    assert found.walk_mask is not None
    rows = (np.arange(61) * found.walk[-1].mask.shape[0] // 61)[:, None]
    assert np.mean(found.walk[-1].mask[rows, np.arange(83) * 64 // 83] == found.walk_mask) > 0.95
    start = found.walk[0].reach
    assert start[found.cell] == 1
    assert start.sum() == 1


def test_an_image_with_a_walk_of_its_own_is_explained_by_that_walk(context: Context) -> None:
    """The page shows the walk that the mask is made with, and says in which way it is another than the run's."""
    sections = {"refinement": {"gate": "image"}, "walk": {"num_steps": 160}}
    changed = {name: getattr(context.config, name).model_copy(update=each) for name, each in sections.items()}
    gated = replace(context, config=context.config.model_copy(update=changed))
    row = stored(write_masks(gated), "photo_1")
    alpha, num_steps = row["walk_alpha"], row["walk_steps"]
    assert (alpha, num_steps) != (1, 160)
    found = explain(find_masks(gated), manifest_row(gated, "photo_1"))
    assert found.mask_png == row["mask"]
    assert found.walk[-1].num_steps == num_steps
    (note,) = (note for note in found.notes if "This image's walk" in note)
    assert f"has {num_steps} steps and alpha {alpha:g}, where the run's has 160 and 1: its mask parts" in note
    assert found.walk_mask is not None
    rows = (np.arange(61) * found.walk[-1].mask.shape[0] // 61)[:, None]
    assert np.mean(found.walk[-1].mask[rows, np.arange(83) * 64 // 83] == found.walk_mask) > 0.95


def test_the_cell_of_a_pixel(context: Context, masks: str) -> None:
    """The image has 61 x 83 pixels and is seen with 47 x 64: row 60 becomes 46, column 82 becomes 63."""
    row = manifest_row(context, "photo_1")
    assert explain(find_masks(context), row, pixel=(60, 82)).cell == (46 // 8, 63 // 8)
    assert explain(find_masks(context), row, pixel=(0, 0)).cell == (0, 0)
    with pytest.raises(ValueError, match="61,0 lies outside the image: it has 61 rows and 83 columns"):
        explain(find_masks(context), row, pixel=(61, 0))


def test_scores_against_the_truth(context: Context, masks: str) -> None:
    found = explain(find_masks(context), manifest_row(context, "photo_1"))
    assert found.class_iou["cat"] == pytest.approx(np.mean(found.mask == 1))
    assert explain(find_masks(context), manifest_row(context, "photo_2")).mean_iou is None


def test_maps_and_trimap_of_the_seeds_are_taken(context: Context, masks: str) -> None:
    """Other maps than the run's: so the mask differs, and the page says so."""
    cam = np.zeros((1, 12, 16), np.float32)
    cam[:, :3] = 1
    trimap = np.full((6, 8), 2, np.uint8)
    row = {"image_id": "photo_2", "height": 47, "width": 64, "class_ids": [2], "trimap": encode_png(trimap)}
    row |= {"cam": encode_cam(cam), "cam_height": 12, "cam_width": 16}
    seeds = seeds_plan(context, maps=network(context, "classifier")).artifact(context.config.out)
    write_outputs(seeds.uri, SEEDS, [row])
    found = explain(find_masks(context), manifest_row(context, "photo_2"))
    assert np.array_equal(found.cam, cam)
    assert np.array_equal(found.trimap, trimap)
    assert found.num_different == np.count_nonzero(found.mask != decode_mask(stored(masks, "photo_2")["mask"]))  # type: ignore[arg-type]
    assert found.num_different
    assert [name for name, _ in found.provenance] == ["classifier", "AffinityNet", "seeds", "masks", "raypipe"]


def test_the_page_is_one_file(context: Context, masks: str) -> None:
    uri = write_explanation(context, "photo_1", pixel=(3, 4))
    page = Path(uri).read_text()
    assert Path(uri).parent.name == Path(masks).name
    assert "CAM of dog" in page
    assert "http://" not in page
    assert "<script" not in page
    assert page.count("<img ") >= 20
    assert "no label" in Path(write_explanation(context, "empty")).read_text()


def test_cards_of_the_review_open_the_first_masks_pages(
    context: Context, masks: str, caplog: pytest.LogCaptureFixture
) -> None:
    finished = find_masks(context)
    (ranked, _) = rank(reviewable_rows(context, None), finished.masks, classes=context.classes, num_images=9)
    (first,) = (row["image_id"] for row in ranked)
    folder, _ = run_review(context, masks=finished.masks, decisions=[], num_images=9, num_explained=1)
    page = Path(folder, "index.html").read_text()
    links = set(re.findall(r'href="([^"]*)"', page))
    assert links == {f"../../explain/{finished.masks.digest}/{first}.html"}
    assert first in Path(folder, *links).read_text()
    Path(context.config.out).parent.joinpath(f"{first}.jpg").unlink()
    folder, _ = run_review(context, masks=finished.masks, decisions=[], num_images=9, num_explained=2)
    assert "href=" not in Path(folder, "index.html").read_text()
    assert f"no page on what led to the mask of {first}" in caplog.text


def test_of_other_images_nothing_is_read(context: Context, masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, list[int]]] = []
    original = load.read_columns

    def spy(uri: str, names: list[str], *, rows: list[int]) -> load.Loaded:
        read.append((uri, rows))
        return original(uri, names, rows=rows)

    monkeypatch.setattr(load, "read_columns", spy)
    explain(find_masks(context), manifest_row(context, "photo_1"))
    ((uri, (row,)),) = read
    assert pq.read_table(uri)["image_id"][row].as_py() == "photo_1"


def test_what_cannot_be_explained_says_why(context: Context, masks: str) -> None:
    with pytest.raises(ValueError, match="no image_id 'photo_3': did you mean 'photo_"):
        write_explanation(context, "photo_3")
    with pytest.raises(ValueError, match=r"broken has no mask, it is in quarantine: (?!FetchImages|ImageError)"):
        write_explanation(context, "broken")
    with pytest.raises(NotFinished, match=r"late has no mask yet.*`raypipe masks CONFIG` goes on"):
        write_explanation(context, "late")


def test_an_image_of_a_split_without_masks(context: Context, masks: str) -> None:
    config = load_config("", ["manifest=m", f"out={context.config.out}", "splits.masks=[val]"])
    rows = [
        row | {"split": "val" if row["image_id"] == "late" else "train"} for row in context.manifest.table.to_pylist()
    ]
    with pytest.raises(ValueError, match="photo_1 is of split 'train', which gets no masks"):
        write_explanation(Context(config, Manifest.from_rows(rows, context.classes)), "photo_1")


def test_a_run_without_masks_says_what_to_run_first(context: Context) -> None:
    with pytest.raises(NotFinished, match="has no masks of this config; `raypipe masks CONFIG`"):
        find_masks(context)
    bare = load_config("", ["manifest=m", f"out={context.config.out}"])
    with pytest.raises(NotFinished, match="has no classifier of this config"):
        find_masks(Context(bare, context.manifest))
