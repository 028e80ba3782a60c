"""The whole pipeline with everything in a bucket of a real S3 server."""

from pathlib import Path

import numpy as np

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.shards import read_shards
from raypipe.run import open_run
from raypipe.schema import MASKS
from raypipe.synthetic.generate import generate

OVERRIDES = [
    "classifier.epochs=1",
    "classifier.crop_size=96",
    "classifier.long_side=[96,128]",
    "affinity.epochs=1",
    "affinity.crop_size=96",
    "cams.scales=[1.0]",
    "cluster.rows_per_block=8",
    "cluster.train_workers=1",
    "cluster.network_actors=1",
    "cluster.cpu_actors=1",
    "refinement.gate=off",
    "segmenter.enabled=false",
]


def test_everything_in_a_bucket_and_the_same_masks_from_local_files(
    local_ray: None, bucket: str, synthetic: tuple[str, Manifest], tmp_path: Path
) -> None:
    generate(storage.join(bucket, "data"), num_images=24, sizes=(96, 128))  # the local fixture's images
    manifest = storage.join(bucket, "data", "manifest.parquet")
    remote = open_run(load_config("preset: demo", [f"manifest={manifest}", f"out={bucket}/run", *OVERRIDES]))
    report = storage.read_bytes(remote.report(num_samples=1)).decode()
    assert "data:image/" in report
    assert all(0 <= score.mean_iou <= 1 for score in remote.evaluate()[1])

    assert remote.train_affinity() is not None
    given = [
        f"checkpoints.classifier={remote.train_classifier().uri}",
        f"checkpoints.affinity={remote.train_affinity().uri}",
    ]
    local = open_run(load_config("preset: demo", [f"manifest={synthetic[0]}", f"out={tmp_path}", *OVERRIDES, *given]))
    columns = ["image_id", "mask", "confidence", "walk_mask"]
    masks = [
        read_shards(f"{run.make_masks().uri}/shards", columns=columns, schema=MASKS).to_pylist()
        for run in (remote, local)
    ]
    assert len(masks[0]) == 24
    assert masks[0] == masks[1]

    again = open_run(remote.config)
    before = _modified(f"{bucket}/run")
    assert again.make_masks() == remote.make_masks()
    assert _modified(f"{bucket}/run") == before
    assert not [name for name in before if name.endswith(".tmp")]


def _modified(uri: str) -> dict[str, np.datetime64]:
    fs, path = storage.filesystem(uri)
    return {
        name: info["LastModified"] for name, info in fs.find(path, detail=True).items() if name.endswith(".parquet")
    }
