"""What hosts find outside of them: an S3 server, with a dataset and networks on it."""

import json
import urllib.request
from dataclasses import dataclass

import fsspec
import torch

from raypipe import storage
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.networks import build_affinity_net, build_classifier
from raypipe.synthetic.generate import CLASSES, generate

NUM_IMAGES = 120

CONFIG = """preset: demo
manifest: {bucket}/data/manifest.parquet
out: {bucket}/run
cams: {{ scales: [1.0] }}
refinement: {{ gate: "off" }}
checkpoints: {{ classifier: "{bucket}/classifier", affinity: "{bucket}/affinity" }}
cluster: {{ rows_per_block: 4, start_timeout: 120 }}
"""


@dataclass(frozen=True)
class Outside:
    """What hosts find outside of them."""

    s3: dict[str, str]
    """The environment that names the S3 server."""
    bucket: str
    config: str
    """URI of the config that seeds and masks are made with."""

    def refused(self) -> dict[str, int]:
        """Requests that the S3 server has refused so far, by address and code."""
        with urllib.request.urlopen(f"{self.s3['AWS_ENDPOINT_URL']}/-/refused", timeout=10) as answer:  # noqa: S310
            return dict(json.load(answer))


def fill_bucket(name: str) -> str:
    """A new bucket with images, networks and a config; its URI."""
    bucket = f"s3://{name}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    generate(f"{bucket}/data", num_images=NUM_IMAGES, sizes=(96, 128))
    for task in ("classifier", "affinity"):
        _write_network(f"{bucket}/{task}", task)
    storage.write_bytes_atomic(f"{bucket}/config.yaml", CONFIG.format(bucket=bucket).encode())
    return bucket


def _write_network(uri: str, task: Task) -> None:
    torch.manual_seed(0)
    network = build_classifier("tiny", num_classes=len(CLASSES)) if task == "classifier" else build_affinity_net("tiny")
    checkpoint = Checkpoint(
        task=task,
        backbone="tiny",
        classes=CLASSES,
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"saliency": "none"}},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, uri)
