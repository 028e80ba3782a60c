"""From a checkpoint to a network that is ready for inference."""

from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.checkpoints import Checkpoint, read_checkpoint
from raypipe.networks import (
    AffinityNet,
    Classifier,
    Network,
    Preprocessing,
    SaliencyClassifier,
    build_affinity_net,
    build_classifier,
    build_saliency_classifier,
    load_state,
)
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.precision import default_device
from raypipe.schema import GRID_STRIDE

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def load_classifier(
    uri: str, *, output_stride: Literal[8, 16] = 8
) -> tuple[Classifier | SaliencyClassifier, Checkpoint, torch.device]:
    """The classifier of a checkpoint in eval mode, on the GPU if there is one; its kind is that of its training.

    Raises:
        ValueError: if the checkpoint is missing, damaged, of another task or of another architecture than it says.
    """
    checkpoint = read_checkpoint(uri, task="classifier")
    taught_by_saliency = checkpoint.config.get("saliency", "none") != "none"
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
    network = build_affinity_net(
        checkpoint.backbone,
        depths=checkpoint.config.get("depths"),
        preprocessing=Preprocessing.from_dict(checkpoint.preprocessing),
    )
    return _ready(network, checkpoint), checkpoint, default_device()


def _ready(network: AnyNetwork, checkpoint: Checkpoint) -> AnyNetwork:
    load_state(network, checkpoint.weights, source=f"the checkpoint {checkpoint.digest}", require_head=True)
    network.eval()
    fold_batchnorm(network)
    network.to(device=default_device())
    return network.to(memory_format=torch.channels_last)


def network_input(
    pixels: NDArray[np.uint8], *, preprocessing: Preprocessing, device: torch.device, scale: float = 1.0
) -> tuple[Tensor, tuple[int, int]]:
    """An image as a network takes it: normalised, resized, zero padded at the right and bottom to multiples of 8.

    Args:
        pixels: (H, W, 3) RGB.
        preprocessing: the network's.
        device: where the result lives.
        scale: factor of both sides.

    Returns:
        (1, 3, H', W') float32, and the scaled size (round(H scale), round(W scale)) that the padding doesn't count in.
    """
    image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    x = preprocessing.normalize(image)
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    if scale != 1.0:
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    x = F.pad(x, (0, -width % GRID_STRIDE, 0, -height % GRID_STRIDE))
    return x.contiguous(memory_format=torch.channels_last), (height, width)
