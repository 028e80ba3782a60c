"""Measures the mean IoU of a segmentation network on whole images after an epoch, on all workers of a training."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.distributed
from numpy.typing import NDArray

from raypipe.data.images import decode_image, decode_mask, resize_map
from raypipe.networks import Network, network_input
from raypipe.networks.precision import autocast
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.metrics import confusion_matrix, mean_iou

logger = logging.getLogger(__name__)

ValidationFeed = Callable[[int, int], Iterator[pa.Table]]
"""Maps (rank, world size) to this worker's images: `image_id, image, mask, error_stage, error_reason`."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The images to validate on, and how the network sees them."""

    feed: ValidationFeed
    num_classes: int
    """With background."""
    max_side: int
    precision: Literal["auto", "fp32", "bf16"]

    @torch.inference_mode()
    def mean_iou(self, network: Network, rank: int, world_size: int) -> float:
        """Returns the mean IoU over all workers' images at their working size: one pass, without post-processing.

        The network is in eval mode for it, and in training mode afterwards.
        """
        network.eval()
        device = next(network.parameters()).device
        confusion = np.zeros((self.num_classes, self.num_classes), np.int64)
        for table in self.feed(rank, world_size):
            for row in table.to_pylist():
                if row["error_stage"] is None:
                    confusion += self._score(network, row, device)
                else:
                    logger.warning("validation leaves out %s: %s", row["image_id"], row["error_reason"])
        network.train()
        total = torch.from_numpy(confusion).to(device)
        if world_size > 1:
            torch.distributed.all_reduce(total)
        return mean_iou(total.cpu().numpy())

    def _score(self, network: Network, row: dict[str, Any], device: torch.device) -> NDArray[np.int64]:
        pixels = decode_image(row["image"], max_side=self.max_side).pixels
        size = (pixels.shape[0], pixels.shape[1])
        x, _ = network_input(pixels, preprocessing=network.preprocessing, device=device)
        with autocast(device, self.precision):
            logits = network(x)
        predicted = upsample_to_image(logits[0].float(), size=size).argmax(dim=0).to(torch.uint8).cpu().numpy()
        truth = resize_map(decode_mask(row["mask"]), size)
        return confusion_matrix(truth, predicted, num_classes=self.num_classes)
