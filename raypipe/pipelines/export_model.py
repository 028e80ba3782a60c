"""Hands the segmentation network over to those who have no raypipe, and makes sure that they get the same."""

import logging

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.images import decode_image
from raypipe.formats.torchscript.write import largest_difference, to_torchscript
from raypipe.pipelines.context import Context, draw
from raypipe.stages.base import ROW_ERRORS
from raypipe.stages.networks import load_segmenter

logger = logging.getLogger(__name__)

NUM_IMAGES = 20
TOLERANCE = 1e-3


def export_model(context: Context, *, segmenter: Artifact, uri: str) -> float:
    """Writes the segmentation network as one TorchScript file.

    Args:
        context: config and manifest, on whose images the file is compared with the network.
        segmenter: the checkpoint.
        uri: the file's.

    Returns:
        The largest difference of a probability that was seen.

    Raises:
        ValueError: if it exceeds `TOLERANCE`; nothing is written then.
    """
    network, checkpoint = load_segmenter(segmenter.uri, device="cpu")
    model = to_torchscript(network, classes=checkpoint.classes, digest=checkpoint.digest)
    rows = context.rows(context.config.splits.masks)
    images = []
    for index in draw(rows["image_id"].to_pylist(), NUM_IMAGES):
        try:
            data = storage.read_bytes(rows["image_uri"][index].as_py())
            images.append(decode_image(data, max_side=context.config.images.max_side).pixels)
        except ROW_ERRORS as error:
            logger.warning("not compared on %s: %s", rows["image_id"][index], error)
    difference = largest_difference(model, network, images)
    if difference > TOLERANCE:
        raise ValueError(
            f"the exported model's probabilities differ by {difference:.2g} from the checkpoint's, "
            f"allowed is {TOLERANCE:g}: convolutions of this machine aren't reproducible enough, try another one"
        )
    storage.write_bytes_atomic(uri, model)
    logger.info("%s: differs by %.2g at most on %d images", uri, difference, len(images))
    return difference
