from pathlib import Path
from typing import Any

import numpy as np
import pytest
from container_files import places_in, write_images, write_tar
from crop_inputs import ARGS
from PIL import Image
from stream_outputs import write_masks, write_outputs

from raypipe.artifacts import Artifact
from raypipe.containers.place import cell_uri, member_uri
from raypipe.data import shards
from raypipe.data.images import encode_png
from raypipe.schema import IGNORE, SEEDS, columns
from raypipe.stages.shard_crops import LoadAffinityCrops, LoadSegmenterCrops


def affinity_stage() -> LoadAffinityCrops:
    stage = LoadAffinityCrops(seeds=Artifact("seeds", "s"), **ARGS)
    stage.setup("cpu")
    return stage


def with_trimaps(folder: Path, row: dict[str, Any], trimaps: dict[str, np.ndarray | None]) -> dict[str, dict[str, Any]]:
    """The row under several ids, whose trimaps are in one shard."""
    rows = [{"image_id": name, "trimap": None if t is None else encode_png(t)} for name, t in trimaps.items()]
    write_outputs(str(folder), columns(SEEDS, "image_id", "trimap"), rows)
    (shard,) = folder.glob("shards/*/*.parquet")
    return {
        name: row | {"image_id": name, "shard_uri": str(shard), "shard_row": number}
        for number, name in enumerate(sorted(trimaps))
    }


@pytest.fixture
def trimap() -> np.ndarray:
    """Class 1 above, unsure below."""
    trimap = np.full((8, 11), 255, np.uint8)
    trimap[:4] = 1
    return trimap


def test_affinity_crop_and_trimap(row: dict[str, Any], trimap: np.ndarray, tmp_path: Path) -> None:
    out = affinity_stage().process(with_trimaps(tmp_path, row, {"a": trimap})["a"])
    assert len(out["crop"]) == 32 * 32 * 3
    assert set(np.frombuffer(out["target"], np.uint8)) <= {1, 255}
    assert len(out["target"]) == 16


def test_a_trimap_that_is_absent_or_another_image_s_is_an_error_of_its_row(
    row: dict[str, Any], trimap: np.ndarray, tmp_path: Path
) -> None:
    named = with_trimaps(tmp_path, row, {"a": trimap, "null": None, "small": trimap[:2]})
    named["gone"] = named["a"] | {"shard_row": 7}
    named["lost"] = named["a"] | {"shard_uri": str(tmp_path / "absent.parquet")}
    failed = named["a"] | {"error_stage": "Earlier", "shard_uri": None}
    stage = affinity_stage()
    good, null, small, gone, lost, earlier = stage.process_all([*named.values(), failed])
    assert good["crop"] == stage.process(named["a"])["crop"]
    assert "has no trimap of it" in null["error_reason"]
    assert "expected a trimap of" in small["error_reason"]
    assert "has no row 7" in gone["error_reason"]
    assert "absent.parquet" in lost["error_reason"]
    assert earlier["error_stage"] == "Earlier"


def segmenter_targets(row: dict[str, Any], *, min_confidence: float = 0.0) -> tuple[np.ndarray, int]:
    """Mask of a crop that holds the whole image, and whether the mask is a true one."""
    options = {"masks": Artifact("masks", "m"), **ARGS, "crop_size": 83, "min_confidence": min_confidence}
    stage = LoadSegmenterCrops(num_classes=4, long_side=(83, 83), **options)
    stage.setup("cpu")
    out = stage.process(row)
    target = np.frombuffer(out["target"], np.uint8)
    assert len(out["crop"]) == 83 * 83 * 3
    return target[:-1].reshape(83, 83), int(target[-1])


def test_crops_of_containers_are_those_of_files(tmp_path: Path, row: dict[str, Any]) -> None:
    image, truth = Path(row["image_uri"]).read_bytes(), encode_png(np.full((61, 83), 3, np.uint8))
    (tmp_path / "truth.png").write_bytes(truth)
    write_tar(tmp_path / "t.tar", {"a.jpg": image, "a.png": truth})
    write_images(tmp_path / "p.parquet", [image, truth])
    places = {name: member_uri(f"{tmp_path}/t.tar", *place) for name, place in places_in(tmp_path / "t.tar").items()}
    cells = [cell_uri(f"{tmp_path}/p.parquet", "image.bytes", number, group=0) for number in range(2)]
    stage = LoadSegmenterCrops(masks=None, num_classes=4, long_side=(83, 83), min_confidence=0, **ARGS)
    stage.setup("cpu")
    uris = [(row["image_uri"], f"{tmp_path}/truth.png"), (places["a.jpg"], places["a.png"]), tuple(cells)]
    rows = [row | {"image_uri": one, "mask_uri": other, "supervision": "mask"} for one, other in uris]
    first, *others = stage.process_all(rows)
    assert first.get("error_reason") is None
    assert all(each[name] == first[name] for each in others for name in ("crop", "target"))


def test_a_true_mask_is_taken_as_it_is(row: dict[str, Any], tmp_path: Path) -> None:
    truth = np.full((61, 83), 3, np.uint8)
    truth[:10] = IGNORE
    (tmp_path / "truth.png").write_bytes(encode_png(truth))
    mask, is_true = segmenter_targets(
        row | {"supervision": "mask", "mask_uri": str(tmp_path / "truth.png"), "shard_uri": None}
    )
    assert is_true == 1
    assert (mask == 3).sum() == 51 * 83
    assert (mask == IGNORE).sum() == 83**2 - 51 * 83


@pytest.fixture
def weak_row(row: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A row whose pseudo-mask has classes 0 and 1, with confidences 51 and 255."""
    mask, confidence = np.zeros((61, 83), np.uint8), np.full((61, 83), 51, np.uint8)
    mask[20:], confidence[20:] = 1, 255
    size = {"height": mask.shape[0], "width": mask.shape[1]}
    made = {"image_id": "a", "mask": encode_png(mask), "confidence": encode_png(confidence), **size}
    write_masks(str(tmp_path), [made])
    (shard,) = tmp_path.glob("shards/*/*.parquet")
    return row | {"supervision": "weak", "mask_uri": None, "shard_uri": str(shard), "shard_row": 0}


def test_a_pseudo_mask_comes_from_its_shard(weak_row: dict[str, Any]) -> None:
    mask, is_true = segmenter_targets(weak_row)
    assert is_true == 0
    assert [(mask == class_id).sum() for class_id in (0, 1, IGNORE)] == [20 * 83, 41 * 83, 22 * 83]


def test_pixels_of_little_confidence_are_left_out(weak_row: dict[str, Any]) -> None:
    mask, _ = segmenter_targets(weak_row, min_confidence=0.3)
    assert [(mask == class_id).sum() for class_id in (0, 1)] == [0, 41 * 83]


def test_a_mask_of_another_image_is_an_error(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "truth.png").write_bytes(encode_png(np.zeros((60, 83), np.uint8)))
    with pytest.raises(ValueError, match=r"the mask is \(60, 83\) .*the image, .*\(61, 83\)"):
        segmenter_targets(row | {"supervision": "mask", "mask_uri": str(tmp_path / "truth.png"), "shard_uri": None})


@pytest.mark.parametrize("max_side", [83, 40])
def test_a_mask_of_the_picture_in_the_file_is_turned(row: dict[str, Any], tmp_path: Path, max_side: int) -> None:
    picture = np.zeros((61, 83, 3), np.uint8)
    picture[:20, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif.tobytes())
    (tmp_path / "truth.png").write_bytes(encode_png(picture[..., 0] // 255))
    options = {**ARGS, "crop_size": 83, "fill": (0, 0, 0), "jitter": (0.0, 0.0, 0.0, 0.0), "max_side": max_side}
    stage = LoadSegmenterCrops(masks=None, num_classes=2, long_side=(83, 83), min_confidence=0, **options)
    truth = {"supervision": "mask", "mask_uri": str(tmp_path / "truth.png"), "shard_uri": None}
    out = stage.process(row | truth | {"image_uri": str(tmp_path / "turned.png")})
    crop = np.frombuffer(out["crop"], np.uint8).reshape(83, 83, 3)[..., 0] > 127
    mask = np.frombuffer(out["target"], np.uint8)[:-1].reshape(83, 83) == 1
    assert crop.sum() > 500
    assert (crop != mask).mean() < 0.03


def test_a_shard_s_footer_is_read_once(weak_row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    contents = shards._read_contents
    monkeypatch.setattr(shards, "_read_contents", lambda uri: read.append(uri) or contents(uri))
    options = {"masks": Artifact("masks", "m"), **ARGS, "min_confidence": 0.0}
    stage = LoadSegmenterCrops(num_classes=4, long_side=(83, 83), **options)
    stage.setup("cpu")
    for epoch in range(3):
        stage.process(weak_row | {"epoch": epoch})
    assert read == [weak_row["shard_uri"]]
