"""Checkpoints of tiny networks with random weights, the same ones each time."""

from collections.abc import Sequence

import torch

from raypipe.artifacts import Artifact
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.networks import build_affinity_net, build_classifier


def write_tiny(uri: str, *, task: Task = "classifier", classes: Sequence[str] = ("cat", "dog")) -> Artifact:
    """Writes a classifier's or an AffinityNet's checkpoint."""
    torch.manual_seed(0)
    network = build_classifier("tiny", num_classes=len(classes)) if task == "classifier" else build_affinity_net("tiny")
    checkpoint = Checkpoint(
        task=task,
        backbone="tiny",
        classes=tuple(classes),
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"saliency": "none"}},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, uri)
    return Artifact(uri, checkpoint.digest)
