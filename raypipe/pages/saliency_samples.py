"""The saliency loss of a few training images, for the report."""

from functools import partial

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.manifest import class_ids_of
from raypipe.data.saliency_maps import decode_saliency
from raypipe.data.scenes import read_image
from raypipe.faults import ROW_ERRORS
from raypipe.networks import SaliencyClassifier, network_input
from raypipe.pipelines.classifier import classifier_task, learned_rows
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import is_labelled
from raypipe.pipelines.saliency_maps import find_saliency, with_saliency
from raypipe.reports.content import SaliencySample
from raypipe.schema import PREDICTED_URI
from raypipe.stages.base import Row
from raypipe.stages.networks import load_classifier
from raypipe.streams.collect import draw
from raypipe.training.saliency_task import SaliencyTask


def saliency_samples(context: Context, *, classifier: Artifact, num_samples: int) -> list[SaliencySample]:
    """A few training images with labels, drawn at random; none where saliency taught nothing.

    Args:
        context: config and manifest.
        classifier: the checkpoint.
        num_samples: images that are wanted.
    """
    config, task = context.config, classifier_task(context)
    if not isinstance(task, SaliencyTask) or config.checkpoints.classifier is not None:
        return []
    network = load_classifier(classifier.uri, device="cpu", output_stride=config.classifier.output_stride)
    assert isinstance(network, SaliencyClassifier)  # trained by this config
    predicted = find_saliency(context)
    rows = learned_rows(context)
    rows = rows.filter(is_labelled(rows))
    rows = rows.take(pa.array(draw(rows["image_id"].to_pylist(), num_samples), pa.int64()))
    samples = []
    for row in with_saliency(rows, predicted=predicted).to_pylist():
        try:
            samples.append(_sample(context, task, network, row))
        except ROW_ERRORS:
            continue  # the training has counted it as unreadable
    return samples


@torch.inference_mode()
def _sample(context: Context, task: SaliencyTask, network: SaliencyClassifier, row: Row) -> SaliencySample:
    images = context.config.images
    pixels = read_image(row["image_uri"], images).pixels
    height, width = pixels.shape[:2]
    data = storage.read_bytes(row["saliency_uri"] or row[PREDICTED_URI])
    image = partial(storage.read_bytes, row["image_uri"])
    saliency = decode_saliency(data, size=(height, width), image=image, max_side=images.max_side)
    saliency = np.asarray(Image.fromarray(saliency).resize((width, height), Image.Resampling.BILINEAR))
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
    labels = torch.zeros(1, len(context.classes))
    labels[0, [class_id - 1 for class_id in class_ids_of(row["labels"], context.classes)]] = 1
    # As a training crop, padding included, so that all maps have one geometry.
    padding = (0, x.shape[3] - width, 0, x.shape[2] - height)
    crop = F.pad(torch.from_numpy(pixels).permute(2, 0, 1)[None], padding)
    target = F.pad(torch.tensor(saliency)[None], padding)
    explained = task.explain(network(x)[1].float(), target, labels, crop)

    def cut(maps: torch.Tensor) -> NDArray[np.float32]:
        full = F.interpolate(maps.float(), size=x.shape[2:], mode="bilinear", align_corners=False)
        values: NDArray[np.float32] = full[0, 0, :height, :width].cpu().numpy()
        return values

    drops = task.method == "eps++" and task.ird
    return SaliencySample(
        image_id=row["image_id"],
        labels=tuple(row["labels"]),
        pixels=pixels,
        saliency=cut(target[None] / 255),
        foreground=cut(explained.foreground),
        refined=cut(explained.refined) if drops else None,
        inconsistent_region=cut(explained.inconsistent_region) > 0.5 if drops else None,
    )
