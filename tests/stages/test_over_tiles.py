"""Scenes worked on in tiles, through the stages of the real plans, in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

from rasters import tiff

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import cam_view, decode_scores
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.rasters import Raster
from raypipe.data.scenes import Scene
from raypipe.data.tiles import Tile, tiles_of
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import gate_plan
from raypipe.pipelines.masks import masks_plan
from raypipe.pipelines.seeds import seeds_plan
from raypipe.stages import over_tiles
from raypipe.stages.base import Row, Stage, run_stages
from raypipe.stages.over_tiles import OverTiles

HEIGHT, WIDTH = 204, 268
CLASSES = ("cat", "dog")


def texture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    path.write_bytes(tiff(texture(HEIGHT, WIDTH), photometric="rgb"))
    return str(path)


@pytest.fixture
def context(classifier_uri: str, affinity_uri: str, request: pytest.FixtureRequest) -> Any:
    def make(*options: str) -> Context:
        config = load_config(
            "preset: demo",
            ["manifest=m", "out=o", "cams.scales=[1.0]", "walk.num_steps=16", "precision=fp32", *options],
        )
        return Context(config, Manifest.from_rows([], CLASSES))

    make.maps = Artifact(classifier_uri, "c")  # type: ignore[attr-defined]
    make.affinity = Artifact(affinity_uri, "a")  # type: ignore[attr-defined]
    return make


def run(stages: Sequence[Stage], uri: str, labels: Sequence[str] = CLASSES) -> Row:
    table = pa.table(
        {
            "image_id": ["scene"],
            "image_uri": [uri],
            "labels": pa.array([list(labels)], pa.list_(pa.string())),
            "split": ["train"],
        }
    )
    for stage in stages:
        stage.setup("cpu")
    (row,) = run_stages(stages, table).to_pylist()
    return dict(row)


def masks(make: Any, *options: str) -> Sequence[Stage]:
    return masks_plan(make(*options), maps=make.maps, affinity=make.affinity).steps


REFINED = [
    ["refinement.method=none"],
    ["refinement.method=dcrf"],
    ["refinement.method=pamr"],
    ["refinement.method=dcrf", "refinement.device=gpu"],
    ["refinement.method=none", "cams.out_stride=1"],
    ["refinement.method=none", "cams.scales=[1.0,0.5]"],
    ["refinement.method=none", "walk.affinity=rgb"],
]


@pytest.mark.parametrize("options", REFINED)
def test_a_scene_in_one_tile_gets_the_masks_of_an_image(
    options: list[str], context: Any, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(masks(context, *options, "refinement.gate=off"), scene)
    assert whole["error_reason"] is None
    monkeypatch.setattr(Scene, "tiled", property(lambda _: True))
    tiled = run(masks(context, *options, "images.tile=320", "images.bands=[1,2,3]"), scene)  # tiles never choose
    tiled.pop("scene")
    whole.pop("image")
    assert {name: tiled[name] for name in whole if name != "predicted_iou"} == {
        name: value for name, value in whole.items() if name != "predicted_iou"
    }
    assert tiled["predicted_iou"] == pytest.approx(whole["predicted_iou"])


def test_seeds_of_a_scene_in_one_tile_are_those_of_an_image(
    context: Any, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in (["refinement.device=cpu"], ["refinement.device=gpu"], ["trimaps.crf_stride=4"]):
        plain = run(seeds_plan(context(*options), maps=context.maps).steps, scene)
        with monkeypatch.context() as patch:
            patch.setattr(Scene, "tiled", property(lambda _: True))
            tiles = context(*options, "images.tile=320", "images.bands=[1,2,3]")
            tiled = run(seeds_plan(tiles, maps=context.maps).steps, scene)
        assert plain["trimap"] is not None
        assert [tiled[name] for name in ("cam", "trimap", "height")] == [
            plain[name] for name in ("cam", "trimap", "height")
        ]


def test_masks_come_back_whole_at_full_size(context: Any, scene: str) -> None:
    row = run(masks(context, "images.tile=128", "refinement.method=dcrf"), scene)
    assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
    assert row["cam_height"] == HEIGHT // 4
    for name in ("mask", "walk_mask", "confidence"):
        assert decode_mask(row[name]).shape == (HEIGHT, WIDTH)
    assert set(row["class_ids"]) <= {0, 1, 2}
    assert 0 <= row["predicted_iou"] <= 1


def test_the_order_of_the_tiles_does_not_matter(context: Any, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = masks(context, "images.tile=128", "refinement.method=dcrf")
    forwards = run(stages, scene)

    def backwards(height: int, width: int, side: int) -> Iterator[Tile]:
        yield from reversed([*tiles_of(height, width, side)])

    monkeypatch.setattr(over_tiles, "tiles_of", backwards)
    found = run(stages, scene)
    assert found.pop("predicted_iou") == pytest.approx(forwards.pop("predicted_iou"))
    assert found == forwards


def maps_of(row: Row) -> NDArray[np.float32]:
    return cam_view(row["cam"], height=row["cam_height"], width=row["cam_width"]).astype(np.float32)


def test_maps_are_normalised_by_the_scene_and_not_by_the_tile(context: Any, scene: str) -> None:
    cam = maps_of(run(masks(context, "images.tile=128"), scene))
    assert cam.max(axis=(1, 2)) == pytest.approx(1, abs=2e-3)
    peaks = np.array([cam[(slice(None), *tile.kept(4))].max(axis=(1, 2)) for tile in tiles_of(HEIGHT, WIDTH, 128)])
    assert (peaks.max(axis=0) > 0.99).all()
    assert (peaks > 0.99).sum() <= 4  # each class has its maximum in a tile, or next to the border of some


def test_a_texture_that_repeats_has_no_seams(context: Any, tmp_path: Path) -> None:
    one = texture(64, 64, seed=3)
    path = tmp_path / "periodic.tif"
    path.write_bytes(tiff(np.tile(one, (12, 12, 1)), photometric="rgb"))
    row = run(masks(context, "images.tile=512", "refinement.method=none"), str(path))
    inner = maps_of(row)[:, 64:-64, 64:-64]  # without the scene's own borders
    assert inner.std() > 0.1
    assert np.abs(inner[:, :, 16:] - inner[:, :, :-16]).max() < 2e-3
    assert np.abs(inner[:, 16:] - inner[:, :-16]).max() < 2e-3
    mask = decode_mask(row["mask"])[256:-256, 256:-256]
    assert (mask[:, 64:] == mask[:, :-64]).mean() > 0.999
    assert (mask[64:] == mask[:-64]).mean() > 0.999


def test_tiles_see_more_than_the_reduced_scene(context: Any, tmp_path: Path) -> None:
    """A fine texture, which a reduced view averages away, changes the masks of tiles."""
    flat = np.full((256, 256, 3), 120, np.uint8)
    fine = flat.copy()
    fine[100:150, 100:150] += (60 * (np.indices((50, 50)).sum(axis=0) % 2)[..., None] - 30).astype(np.uint8)
    results = {}
    for name, pixels in (("flat", flat), ("fine", fine)):
        path = tmp_path / f"{name}.tif"
        path.write_bytes(tiff(pixels, photometric="rgb"))
        results[name] = maps_of(run(masks(context, "images.tile=64", "images.max_side=64"), str(path)))
    assert np.abs(results["flat"] - results["fine"])[:, 25:37, 25:37].max() > 0.05


def test_a_broken_tile_names_itself_and_holds_up_the_scene_alone(
    context: Any, scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Scene.read

    def broken(self: Scene, rows: slice, columns: slice) -> NDArray[np.uint8]:
        if rows.start == 64 and columns.start == 128:
            raise ValueError("cosmic rays")
        return read(self, rows, columns)

    monkeypatch.setattr(Scene, "read", broken)
    row = run(masks(context, "images.tile=128"), scene)
    assert row["error_stage"] == "ComputeCams"
    reason = "the tile of rows 64 to 192 and columns 128 to 256: ValueError: cosmic rays"
    assert row["error_reason"] == f"ValueError: {reason}"


def test_a_damaged_segment_quarantines_the_scene(context: Any, tmp_path: Path) -> None:
    data = bytearray(tiff(texture(HEIGHT, WIDTH), photometric="rgb", compression="zlib"))
    data[len(data) // 2 : len(data) // 2 + 900] = bytes(900)
    (tmp_path / "damaged.tif").write_bytes(data)
    row = run(masks(context, "images.tile=128"), str(tmp_path / "damaged.tif"))
    assert row["error_stage"] == "FetchScenes"
    assert "damaged or truncated TIFF" in row["error_reason"]


def test_a_scene_without_labels_is_background(context: Any, scene: str) -> None:
    for options in (["refinement.method=dcrf"], ["refinement.method=dcrf", "refinement.device=gpu"]):
        row = run(masks(context, "images.tile=128", *options), scene, labels=[])
        assert row["class_ids"] == [0]
        assert row["predicted_iou"] == 1
        assert not decode_mask(row["mask"]).any()


def test_ordinary_images_in_the_same_run_are_as_ever(context: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(texture(HEIGHT, WIDTH)).save(path)
    plain = run(masks(context, "images.max_side=128"), str(path))
    among = run(masks(context, "images.max_side=128", "images.tile=128"), str(path))
    assert among.pop("scene") is None
    assert among == plain


def test_gates_judge_the_walk_by_tiles_and_the_refinement_by_the_view(context: Any, scene: str) -> None:
    plan = gate_plan(context("images.tile=128", "images.max_side=128"), maps=context.maps, affinity=context.affinity)
    row = run(plan.steps, scene)
    assert row["error_reason"] is None
    scores = [row[name] for name in ("walk_before", "walk_after", "refined_before", "refined_after")]
    assert all(score is not None and np.isfinite(score) for score in scores)


def test_bands_and_percentiles_reach_the_networks(context: Any, tmp_path: Path) -> None:
    """The same scene in 8 bits, and in 16 bits of another range and order of bands."""
    pixels = texture(HEIGHT, WIDTH)
    low, high = np.percentile(pixels.reshape(-1, 3), [2, 98], axis=0)
    shown = np.rint(np.clip((pixels - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
    (tmp_path / "8.tif").write_bytes(tiff(shown, photometric="rgb"))
    wide = np.concatenate([pixels[..., ::-1], pixels[..., :1]], axis=2).astype(np.int16) * 8 - 1500  # rounds alike
    (tmp_path / "16.tif").write_bytes(tiff(wide))
    found = [
        run(masks(context, "images.tile=128", f"images.bands={bands}"), str(tmp_path / name))
        for name, bands in (("8.tif", "null"), ("16.tif", "[3,2,1]"))
    ]
    assert found[0]["mask"] == found[1]["mask"]
    assert np.array_equal(maps_of(found[0]), maps_of(found[1]))


def test_bands_without_tiles_reduce_as_ever(context: Any, tmp_path: Path) -> None:
    wide = np.repeat(texture(HEIGHT, WIDTH), 2, axis=2).astype(np.uint16) * 100
    (tmp_path / "six.tif").write_bytes(tiff(wide))
    row = run(masks(context, "images.bands=[1,3,5]", "images.max_side=200"), str(tmp_path / "six.tif"))
    assert row["error_reason"] is None
    assert decode_mask(row["mask"]).shape == (HEIGHT, WIDTH)
    assert (row["cam_height"], row["cam_width"]) == (152 // 4, 50)


def test_a_file_that_was_exchanged_meanwhile_is_noticed(context: Any, scene: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    path.write_bytes(Path(scene).read_bytes())
    fetch, decode, cams, *_ = masks(context, "images.tile=128")
    between = run([fetch, decode], str(path))
    path.write_bytes(tiff(texture(HEIGHT - 8, WIDTH), photometric="rgb"))
    cams.setup("cpu")
    (row,) = cams.process_all([between])
    assert "isn't the one of 204 x 268 pixels that it was" in row["error_reason"]


def test_rows_that_failed_before_pass_by(context: Any, scene: str) -> None:
    _, _, cams, *_ = masks(context, "images.tile=128")
    assert isinstance(cams, OverTiles)
    failed = {"error_stage": "FetchScenes", "error_reason": "gone", "scene": None}
    assert cams.process_all([failed, failed]) == [failed, failed]


def test_memory_is_that_of_tiles(context: Any, scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stage ever reads more than a tile at full size."""
    largest = 0
    read = Raster.read

    def watched(self: Raster, rows: slice, columns: slice, **options: Any) -> NDArray[np.uint8]:
        nonlocal largest
        largest = max(largest, rows.stop - rows.start, columns.stop - columns.start)
        return read(self, rows, columns, **options)

    monkeypatch.setattr(Raster, "read", watched)
    run(masks(context, "images.tile=128", "refinement.method=dcrf"), scene)
    assert largest == 128


def test_scores_are_those_of_the_tiles_walks(context: Any, scene: str) -> None:
    fetch, decode, cams, walk, *_ = masks(context, "images.tile=128")
    row = run([fetch, decode, cams, walk], scene)
    scores = decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])
    assert scores.shape == (3, -(-HEIGHT // 8), -(-WIDTH // 8))
    assert (scores.sum(axis=0) > 0).all()
