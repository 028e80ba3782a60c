"""From a checkpoint to a network that is ready for inference."""

from typing import Literal, TypeVar

import torch

from raypipe.data.checkpoints import Checkpoint, read_checkpoint
from raypipe.networks import (
    AffinityNet,
    Classifier,
    Network,
    Preprocessing,
    SaliencyClassifier,
    Segmenter,
    build_affinity_net,
    build_classifier,
    build_saliency_classifier,
    build_segmenter,
    load_state,
)
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.precision import default_device

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def load_classifier(
    uri: str, *, output_stride: Literal[8, 16] = 8
) -> tuple[Classifier | SaliencyClassifier, Checkpoint, torch.device]:
    """The classifier of a checkpoint in eval mode, on the GPU if there is one; its kind is that of its training.

    Args:
        uri: the checkpoint's.
        output_stride: of its maps, whatever it was trained at.

    Raises:
        ValueError: if the checkpoint is missing, damaged, of another task or of another architecture than it says.
    """
    checkpoint = read_checkpoint(uri, task="classifier")
    taught_by_saliency = checkpoint.config["section"]["saliency"] != "none"
    network = (build_saliency_classifier if taught_by_saliency else build_classifier)(
        checkpoint.backbone,
        num_classes=len(checkpoint.classes),
        output_stride=output_stride,
        preprocessing=Preprocessing.from_dict(checkpoint.preprocessing),
    )
    return _ready(network, checkpoint), checkpoint, default_device()


def load_affinity_net(uri: str) -> tuple[AffinityNet, Checkpoint, torch.device]:
    """The AffinityNet of a checkpoint in eval mode, on the GPU if there is one.

    Raises:
        ValueError: as `load_classifier`.
    """
    checkpoint = read_checkpoint(uri, task="affinity")
    network = build_affinity_net(checkpoint.backbone, preprocessing=Preprocessing.from_dict(checkpoint.preprocessing))
    return _ready(network, checkpoint), checkpoint, default_device()


def load_segmenter(uri: str) -> tuple[Segmenter, Checkpoint, torch.device]:
    """The segmentation network of a checkpoint in eval mode, on the GPU if there is one.

    Raises:
        ValueError: as `load_classifier`.
    """
    checkpoint = read_checkpoint(uri, task="segmenter")
    network = build_segmenter(
        checkpoint.backbone,
        head=checkpoint.config["section"]["head"],
        num_classes=len(checkpoint.classes),
        preprocessing=Preprocessing.from_dict(checkpoint.preprocessing),
    )
    return _ready(network, checkpoint), checkpoint, default_device()


def _ready(network: AnyNetwork, checkpoint: Checkpoint) -> AnyNetwork:
    load_state(network, checkpoint.weights, source=f"the checkpoint {checkpoint.digest}", require_head=True)
    network.eval()
    fold_batchnorm(network)
    network.to(device=default_device())
    return network.to(memory_format=torch.channels_last)
