"""Reads and writes checkpoints: a folder of `weights.pt` and `checkpoint.json`, which is written last."""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from raypipe import storage
from raypipe.tensors import load_tensors

Task = Literal["classifier", "affinity", "segmenter"]

CHECKPOINT = "checkpoint"
"""Folder of the checkpoint in that of a training."""

METADATA_FILE = "checkpoint.json"
WEIGHTS_FILE = "weights.pt"

_METADATA = frozenset({"task", "backbone", "classes", "preprocessing", "config", "digest"})


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another task."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network's weights and everything that is needed to use them."""

    task: Task
    backbone: str
    classes: tuple[str, ...]
    """Class names in class-id order, without background."""
    preprocessing: dict[str, Any]
    """Fields of `raypipe.networks.Preprocessing`."""
    config: dict[str, Any]
    """`raypipe.config.Training`: what the training was told."""
    weights: dict[str, Tensor] = field(repr=False)

    @property
    def digest(self) -> str:
        """12 hex digits that depend on task, backbone, classes, preprocessing, and the weights' names and values."""
        sha = hashlib.sha256(json.dumps([self.task, self.backbone, self.classes, self.preprocessing]).encode())
        for name in sorted(self.weights):
            sha.update(name.encode())
            sha.update(self.weights[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()[:12]


def write_checkpoint(checkpoint: Checkpoint, uri: str) -> None:
    """Writes a checkpoint; the metadata, written last, marks it complete."""
    buffer = io.BytesIO()
    torch.save(checkpoint.weights, buffer)
    storage.write_bytes_atomic(storage.join(uri, WEIGHTS_FILE), buffer.getvalue())
    metadata = {name: value for name, value in asdict(checkpoint).items() if name != "weights"}
    metadata["digest"] = checkpoint.digest
    storage.write_bytes_atomic(storage.join(uri, METADATA_FILE), json.dumps(metadata, indent=1).encode())


def has_checkpoint(uri: str) -> bool:
    """Returns True if a complete checkpoint is at the URI."""
    return storage.exists(storage.join(uri, METADATA_FILE))


def read_metadata(uri: str, *, task: Task) -> dict[str, Any]:
    """Returns a checkpoint's metadata: task, backbone, classes, preprocessing, config, digest.

    Raises:
        CheckpointError: there is no complete checkpoint at the URI, or it is damaged or of another task.
    """
    if not has_checkpoint(uri):
        raise CheckpointError(
            f"no complete {task} checkpoint at {uri} ({METADATA_FILE} is missing); "
            f"train it (`raypipe train {task} CONFIG`) or set checkpoints.{task} to one that is complete"
        )
    try:
        metadata = json.loads(storage.read_bytes(storage.join(uri, METADATA_FILE)))
    except ValueError as error:
        raise CheckpointError(f"{uri}: {METADATA_FILE} is no JSON ({error}); copy the checkpoint again") from error
    if not isinstance(metadata, dict) or not metadata.keys() >= _METADATA:
        raise CheckpointError(f"{uri}: expected {sorted(_METADATA)} in {METADATA_FILE}; copy the checkpoint again")
    if metadata["task"] != task:
        raise CheckpointError(f"{uri}: expected a checkpoint of task {task!r}, got one of {metadata['task']!r}")
    return metadata


def read_checkpoint(uri: str, *, task: Task) -> Checkpoint:
    """Reads a checkpoint without executing anything in it (`weights_only`).

    Raises:
        CheckpointError: as for `read_metadata`; or the weights hold anything but tensors, or don't match the digest in
            the metadata.
    """
    metadata = read_metadata(uri, task=task)
    checkpoint = Checkpoint(
        task=task,
        backbone=metadata["backbone"],
        classes=tuple(metadata["classes"]),
        preprocessing=metadata["preprocessing"],
        config=metadata["config"],
        weights=_read_weights(storage.join(uri, WEIGHTS_FILE)),
    )
    if checkpoint.digest != metadata["digest"]:
        raise CheckpointError(
            f"{uri}: the weights have digest {checkpoint.digest}, {METADATA_FILE} says {metadata['digest']}; "
            "the folder is damaged or was mixed from two: train it again"
        )
    return checkpoint


def _read_weights(uri: str) -> dict[str, Tensor]:
    try:
        weights = load_tensors(storage.read_bytes(uri), source=uri)
    except (ValueError, FileNotFoundError) as error:
        raise CheckpointError(f"{error}: copy the checkpoint again, or train it") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{uri} holds no tensors by name: copy the checkpoint again, or train it")
    return weights
