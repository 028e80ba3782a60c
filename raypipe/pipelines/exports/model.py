"""Writes the segmentation network as a file that runs without raypipe, once it gives the same probabilities."""

import logging

import torch

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.scenes import read_image
from raypipe.faults import ROW_ERRORS
from raypipe.formats.exported_model.packed import smallest_side
from raypipe.formats.exported_model.write import find_model_format, largest_difference
from raypipe.pipelines.context import Context
from raypipe.stages.networks import load_segmenter
from raypipe.streams.collect import collect, draw_rows

logger = logging.getLogger(__name__)

NUM_IMAGES = 20
TOLERANCE = 1e-3


def export_model(context: Context, *, segmenter: Artifact, uri: str) -> float:
    """Writes the segmentation network as one file; its ending, `.pt2` or `.onnx`, chooses the format.

    Args:
        context: config and manifest, on whose images the file is compared with the network.
        segmenter: the checkpoint.
        uri: the file's.

    Returns:
        The largest difference of a probability that was seen.

    Raises:
        ValueError: the ending is none of these, or the difference exceeds `TOLERANCE`. Nothing is written then.
    """
    model_format = find_model_format(uri)
    network, checkpoint = load_segmenter(segmenter.uri, device="cpu")
    network.to(memory_format=torch.contiguous_format)  # torch.export.save warns of channels_last weights
    data = model_format.write(network, classes=checkpoint.classes, digest=checkpoint.digest)
    images = []
    for row in collect(draw_rows(context.rows(context.config.splits.masks), NUM_IMAGES)).to_pylist():
        try:
            pixels = read_image(row["image_uri"], context.config.images).pixels
        except ROW_ERRORS as error:
            logger.warning("not compared on %s: %s", row["image_id"], error)
            continue
        if min(pixels.shape[:2]) >= smallest_side(network):
            images.append(pixels)
    difference = largest_difference(model_format.load(data), network, images)
    if difference > TOLERANCE:
        raise ValueError(
            f"the exported model's probabilities differ by {difference:.2g} from the checkpoint's, "
            f"allowed is {TOLERANCE:g}: convolutions of this machine aren't reproducible enough, try another one"
        )
    storage.write_bytes_atomic(uri, data)
    logger.info("%s: differs by %.2g at most on %d images", uri, difference, len(images))
    return difference
