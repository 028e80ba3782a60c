"""The whole pipeline on scenes of 16-bit bands in a bucket: trained, masked in tiles, scored, reported, exported."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("tifffile")

from rasters import PLACE, tiff

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.names import file_stem
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.data.tiff import InMemory, geotags
from raypipe.formats.base import Options
from raypipe.pages.review import run_review
from raypipe.pipelines.exports.datasets import run_export
from raypipe.run import open_run
from raypipe.schema import MASKS, QUARANTINE

CLASSES = ("field", "water")
HEIGHT, WIDTH = 200, 280

OPTIONS = [
    "images.bands=[4,3,2]",
    "images.tile=128",
    "images.max_side=128",
    "classifier={epochs: 1, batch_size: 4, crop_size: 64, long_side: [64, 96]}",
    "affinity={epochs: 1, batch_size: 4, crop_size: 64}",
    "segmenter={enabled: true, epochs: 1, batch_size: 4, crop_size: 64, long_side: [64, 96], start: pretrained}",
    "cams.scales=[1.0]",
    "walk.num_steps=4",
    "splits={train: null, masks: null}",
    "cluster={train_workers: 1, network_actors: 1, cpu_actors: 1}",
    "budget.max_rows=2",
]


def scene(seed: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Bands of 12 bits, and the true mask: fields above, water below."""
    rng = np.random.default_rng(seed)
    bands = rng.integers(300, 900, (HEIGHT, WIDTH, 5), dtype=np.uint16)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:90, 40:200], mask[120:, 100:] = 1, 2
    bands[..., 3] += 2000 * (mask == 1).astype(np.uint16)
    bands[..., 1] += 1500 * (mask == 2).astype(np.uint16)
    return bands, mask


def test_scenes_from_training_to_export(local_ray: None, bucket: str, tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        bands, mask = scene(number)
        options = {"extratags": PLACE, "compression": "zlib", **({"rowsperstrip": 10} if number == 1 else {})}
        storage.write_bytes_atomic(f"{bucket}/{number}.tif", tiff(bands, **options))
        storage.write_bytes_atomic(f"{bucket}/{number}.png", encode_png(mask))
        labels = {"labels": list(CLASSES), "mask_uri": f"{bucket}/{number}.png"}
        rows.append({"image_id": f"scene {number}", "image_uri": f"{bucket}/{number}.tif", **labels})
    damaged = bytearray(tiff(scene(0)[0], compression="zlib"))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 3000] = bytes(3000)
    storage.write_bytes_atomic(f"{bucket}/damaged.tif", bytes(damaged))
    photo = io.BytesIO()
    Image.fromarray(scene(1)[0][..., :3].astype(np.uint8)).save(photo, "PNG")
    storage.write_bytes_atomic(f"{bucket}/photo.png", photo.getvalue())
    others = ("damaged.tif", "photo.png")
    rows += [{"image_id": name, "image_uri": f"{bucket}/{name}", "labels": ["field"]} for name in others]
    manifest = Manifest.from_rows(rows, CLASSES)
    write_manifest(manifest, f"{tmp_path}/manifest.parquet")
    run = open_run(
        load_config("preset: demo", [f"manifest={tmp_path}/manifest.parquet", f"out={bucket}/run", *OPTIONS])
    )
    report = storage.read_bytes(run.report(num_samples=2)).decode()
    assert "data:image/" in report
    for made in (run.make_masks(), run.segment()):
        masks = {row["image_id"]: row for row in read_shards(f"{made.uri}/shards", schema=MASKS).to_pylist()}
        assert masks.keys() == {"scene 0", "scene 1", "scene 2", "photo.png"}
        for row in masks.values():
            assert decode_mask(row["mask"]).shape == (HEIGHT, WIDTH)
        (left_out,) = read_shards(f"{made.uri}/quarantine", schema=QUARANTINE).to_pylist()
        assert (left_out["image_id"], left_out["stage"]) == ("damaged.tif", "FetchScenes")
        assert "TIFF" in left_out["reason"]
    assert all(score.num_images == 3 for score in run.evaluate()[1])
    folder, count = run_review(run.context, masks=run.make_masks(), decisions=[], num_images=4)
    assert count
    assert "data:image/" in storage.read_bytes(f"{folder}/index.html").decode()

    masks = {row["image_id"]: row for row in read_shards(f"{run.make_masks().uri}/shards", schema=MASKS).to_pylist()}
    out, summary = run_export(
        run.context, "geotiff", str(tmp_path / "export"), masks=run.make_masks(), options=Options(copy_images=True)
    )
    assert summary.num_finished == 4
    for number in range(3):
        name = f"{file_stem(f'scene {number}')}.tif"
        exported, image = (Path(out, kind, "train", name).read_bytes() for kind in ("masks", "images"))
        assert geotags(InMemory(exported)) == geotags(InMemory(image)) != ()
        assert np.array_equal(decode_mask(exported), decode_mask(masks[f"scene {number}"]["mask"]))
