"""From a checkpoint to a network that is ready for inference."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch

from raypipe import storage
from raypipe.config.base import Precision
from raypipe.data.checkpoints import Checkpoint, read_checkpoint
from raypipe.networks import (
    AffinityNet,
    AnyClassifier,
    Classifier,
    FrozenFeatures,
    Network,
    Preprocessing,
    Segmenter,
    build_affinity_net,
    build_classifier,
    build_frozen_features,
    build_saliency_classifier,
    build_segmenter,
    load_state,
    load_weights,
)
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.precision import cast_weights
from raypipe.schema import GRID_STRIDE

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def load_classifier(
    uri: str, *, device: str, precision: Precision = "fp32", output_stride: Literal[8, 16] = GRID_STRIDE
) -> AnyClassifier:
    """Loads the classifier of a checkpoint in eval mode; its kind is that of its training.

    Args:
        uri: the checkpoint's.
        device: where the network goes to, as torch names it.
        precision: that `autocasting` will be told; weights are cast to it.
        output_stride: pixels a cell of its maps.

    Raises:
        ValueError: if the checkpoint is missing, damaged, of another task or of another architecture than it says.
    """
    checkpoint = read_checkpoint(uri, task="classifier")
    taught_by_saliency = checkpoint.config.get("section", {}).get("saliency", "none") != "none"
    build = build_saliency_classifier if taught_by_saliency else build_classifier
    network = build(checkpoint.backbone, num_classes=len(checkpoint.classes), output_stride=output_stride)
    if is_refit(checkpoint.config):
        network.add_refit()
    return _ready(network, checkpoint, device, precision)


def is_refit(config: Mapping[str, Any]) -> bool:
    """Whether a classifier's checkpoint of this config has maps that `raypipe.ops.refit` has refitted."""
    return REFIT in config


REFIT = "refit"
"""In a checkpoint's config, beside what the classifier's training was told."""

FROZEN = {"frozen": True}
"""What a checkpoint of the task "affinity" says of its training where there was none: it is a backbone as it was."""


def load_affinity_net(uri: str, *, device: str, precision: Precision = "fp32") -> AffinityNet | FrozenFeatures:
    """Loads the AffinityNet of a checkpoint in eval mode, or the backbone that takes its place.

    Raises:
        ValueError: as `load_classifier`.
    """
    checkpoint = read_checkpoint(uri, task="affinity")
    build = build_frozen_features if checkpoint.config == FROZEN else build_affinity_net
    return _ready(build(checkpoint.backbone), checkpoint, device, precision)


def load_segmenter(uri: str, *, device: str, precision: Precision = "fp32") -> tuple[Segmenter, Checkpoint]:
    """Loads the segmentation network of a checkpoint in eval mode, and the checkpoint.

    Raises:
        ValueError: as `load_classifier`.
    """
    checkpoint = read_checkpoint(uri, task="segmenter")
    head, num_classes = checkpoint.config["section"]["head"], len(checkpoint.classes)
    network = build_segmenter(checkpoint.backbone, head=head, num_classes=num_classes)
    return _ready(network, checkpoint, device, precision), checkpoint


def load_pretrained(
    backbone: str,
    weights: str,
    *,
    preprocessing: Preprocessing | None,
    device: str,
    precision: Precision,
    output_stride: Literal[8, 16],
) -> Classifier:
    """Loads a backbone with pretrained weights in eval mode; what it has in front of the classes knows nothing.

    Args:
        backbone: its name.
        weights: URI of the weights, which this node reaches.
        preprocessing: what the weights were trained with; None is the backbone's own.
        device: as of `load_classifier`, as are the next two.
        precision: as there.
        output_stride: as there.

    Raises:
        ValueError: if the weights aren't the backbone's.
    """
    network = build_classifier(backbone, num_classes=1, output_stride=output_stride)
    if preprocessing is not None:
        network.preprocessing = preprocessing
    load_weights(network, weights, read=storage.read_bytes)
    return _on_device(network, device, precision)


def _ready(network: AnyNetwork, checkpoint: Checkpoint, device: str, precision: Precision) -> AnyNetwork:
    network.preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    load_state(network, checkpoint.weights, source=f"the checkpoint {checkpoint.digest}", require_head=True)
    return _on_device(network, device, precision)


def _on_device(network: AnyNetwork, device: str, precision: Precision) -> AnyNetwork:
    network.eval()
    fold_batchnorm(network)
    network.to(device=device)
    kept = [network.backbone.get_submodule(name) for name in network.backbone.float32_weights]
    cast_weights(network, torch.device(device), precision, kept=kept)
    return network.to(memory_format=torch.channels_last)
