"""No-harm gates: how good an image's masks are before and after a refinement, by what the refinement doesn't optimise.

The walk is judged by the separation of features and colours, refined masks by class consistency. Neither can judge the
other. Class consistency would favour the maps before the walk, which the same classifier has made; and a walk maximises
the separation on the grid, so that any finer mask scores lower. The features may be learned or frozen
(benchmarks/frozen_affinity.md): the colours, which know nothing of the walk, keep the score honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.data.images import decode_mask, resize_map
from raypipe.data.manifest import class_ids_of
from raypipe.networks import network_input
from raypipe.networks.cuda import to_device
from raypipe.networks.precision import autocasting
from raypipe.ops.consistency import class_consistency, masked_copies
from raypipe.ops.walk_choice import WalkChoice, alphas_around, steps_around
from raypipe.schema import GATES, MASKS, columns
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.decode import pixels_of
from raypipe.stages.encode import sums_of_classes
from raypipe.stages.networks import load_classifier
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.walked import PooledImage, TakenWalk, compared, encode_walks

WALK_SCORES = columns(GATES, "walk_before", "walk_after")
REFINED_SCORES = columns(GATES, "refined_before", "refined_after")
_PIXELS_PER_PASS = 8_000_000
"""Of one image's copies: about what its largest scale and mirror image have in `ComputeCams`."""


@dataclass(kw_only=True)
class GateWalk(JointStage[PooledImage]):
    """Scores as of `PropagateCams`, and how well they part the image before and after the walk; null without labels.

    Where nothing is known of some cells there is no mask before the walk to judge it by: scores are null, it is kept.
    """

    walk: PropagateCams
    choice: WalkChoice
    """What an image chooses among: it takes the one that suits it (`raypipe.ops.walk_choice`)."""

    reads = PropagateCams.reads
    writes = pa.schema([*PropagateCams.writes, *WALK_SCORES])

    def setup(self, device: str) -> None:
        """Loads the AffinityNet."""
        self.walk.setup(device)

    def prepare(self, row: Row) -> PooledImage:
        """Pools the maps, with the backgrounds that the image chooses among."""
        return self.walk.pooled(row, alphas_around(self.walk.alpha, self.choice))

    def compute(self, prepared: Sequence[PooledImage]) -> list[Row]:
        """Walks the images, judges the walk as it is given, and takes one walk of each image."""
        steps = steps_around(self.walk.num_steps, self.choice)
        walked = self.walk.propagate(prepared, steps=steps if steps[-1] == 0 else (*steps, 0))
        taken, judged = list[TakenWalk | None](), list[Row]()
        for walk, objectives in zip(walked, compared(prepared, walked), strict=True):
            step, alpha, before, after = 0, 0, None, None
            if objectives is not None:
                before, after = objectives[-1, 0].item(), objectives[0, 0].item()
                step, alpha = divmod(int(objectives[: len(steps)].argmax()), objectives.shape[1])
            taken.append(None if walk is None else walk.taken(step, alpha))
            judged.append({"walk_before": before, "walk_after": after})
        return [row | scores for row, scores in zip(encode_walks(prepared, walked, taken), judged, strict=True)]


@dataclass
class MaskedImage:
    """An image, the class ids of its labels, its masks (H, W) before and after refinement, and its row."""

    pixels: NDArray[np.uint8]
    class_ids: list[int]
    masks: list[NDArray[np.uint8]]
    row: Row


def _decoded(row: Row, name: str) -> NDArray[np.uint8]:
    return decode_mask(row[name], size=(row["original_height"], row["original_width"]))


@dataclass(kw_only=True)
class GateMasks(JointStage[MaskedImage]):
    """Class consistency of encoded masks before and after refinement, at the working size; null without labels.

    Images never share a pass: one has enough copies.
    """

    classifier: Artifact
    """The checkpoint that judges."""
    classes: tuple[str, ...]
    keep_better: bool
    """An image takes its mask from before the refinement unless the refined one is more consistent."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    reads = (
        *("image", "labels", "original_height", "original_width"),
        *("class_ids", "mask", "confidence", "areas", "mean_confidences", "walk_mask"),
    )
    writes = pa.schema([*columns(MASKS, "class_ids", "mask", "areas", "mean_confidences"), *REFINED_SCORES])

    def setup(self, device: str) -> None:
        """Loads the classifier."""
        self.network = load_classifier(self.classifier.uri, device=device, precision=self.precision)
        self.device = torch.device(device)

    def prepare(self, row: Row) -> MaskedImage:
        """Decodes the image and its masks."""
        pixels = pixels_of(row, max_side=self.max_side)
        size = (pixels.shape[0], pixels.shape[1])
        masks = [resize_map(_decoded(row, name), size) for name in ("walk_mask", "mask")]
        return MaskedImage(pixels, class_ids_of(row["labels"], self.classes), masks, row)

    def compute(self, prepared: Sequence[MaskedImage]) -> list[Row]:
        """Judges one image after another."""
        return [self._judge(image) for image in prepared]

    def _judge(self, image: MaskedImage) -> Row:
        row = image.row
        columns = {name: row[name] for name in ("class_ids", "mask", "areas", "mean_confidences")}
        if not image.class_ids:
            return columns | {"refined_before": None, "refined_after": None}
        before, after = torch.stack([self._consistency(image, mask) for mask in image.masks]).tolist()
        if self.keep_better and after <= before:
            sums = sums_of_classes(_decoded(row, "walk_mask"), _decoded(row, "confidence"))
            columns = {"mask": row["walk_mask"], **sums}
        return columns | {"refined_before": before, "refined_after": after}

    @torch.inference_mode()
    def _consistency(self, image: MaskedImage, mask: NDArray[np.uint8]) -> Tensor:
        x, (height, width) = network_input(image.pixels, preprocessing=self.network.preprocessing, device=self.device)
        regions = torch.from_numpy(np.stack([mask == class_id for class_id in image.class_ids]))
        copies = masked_copies(x[0, :, :height, :width], to_device(regions, self.device))
        copies = F.pad(copies, (0, x.shape[-1] - width, 0, x.shape[-2] - height))
        copies = copies.contiguous(memory_format=torch.channels_last)
        network = autocasting(self.network.classify, self.device, self.precision)
        logits = torch.cat(in_passes(network, torch.split(copies, 1), pixels_per_pass=_PIXELS_PER_PASS))
        return class_consistency(logits, [class_id - 1 for class_id in image.class_ids])
