"""A run on a local Ray that is told of 16 CPUs and 4 GPUs; what would compute on a GPU computes on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.streams.job import GPU_DEVICE

RUN = """
import json, sys, ray
ray.init(address="local", num_cpus=16, num_gpus=4, object_store_memory=200 * 2**20, include_dashboard=False)
from raypipe.config import load_config
from raypipe.run import open_run
run = open_run(load_config("preset: demo", sys.argv[1:]))
print(json.dumps([str(run.context.machine), run.make_seeds().uri, run.make_masks().uri]))
"""

OPTIONS = [
    *("classifier.epochs=1", "classifier.crop_size=96", "classifier.long_side=[96,128]"),
    *("affinity.epochs=1", "affinity.crop_size=96"),
    *("cams.scales=[1.0]", "splits.masks=null", "cluster.rows_per_block=4"),
    "cluster.gpus_per_train_worker=0",  # NCCL would look for the GPUs
]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_seeds_masks_and_trainings_end(synthetic: tuple[str, Manifest], tmp_path: Path, device: str) -> None:
    """With one unreadable image, which is quarantined in the seeds and takes no more room in the masks."""
    manifest = tmp_path / "manifest.parquet"
    rows = synthetic[1].table.to_pylist()
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    rows[3]["image_uri"] = str(tmp_path / "broken.jpg")
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(manifest))
    environment = os.environ | {GPU_DEVICE: "cpu"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            RUN,
            f"manifest={manifest}",
            f"out={tmp_path}/out",
            *OPTIONS,
            f"refinement.device={device}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    machine, *folders = json.loads(done.stdout.splitlines()[-1])
    assert "16 CPUs, 4 GPUs" in machine
    for folder in folders:
        counts = json.loads(Path(folder, "summary.json").read_text())
        assert (counts["num_finished"], counts["num_quarantined"]) == (len(rows) - 1, 1)
