"""Puts published weights into the run's folder, so that one machine downloads them, and no other needs the internet."""

import logging

import safetensors.torch

from raypipe import storage
from raypipe import uri as uris
from raypipe.networks.preprocessing import Preprocessing
from raypipe.networks.registry import TORCHVISION_SCHEME, cached_file, load_torchvision_weights
from raypipe.networks.timm_registry import HUB_SCHEME, TIMM_SCHEME, load_timm_weights

FOLDER = "weights"

logger = logging.getLogger(__name__)


def is_published(weights: str) -> bool:
    """Whether weights come from the internet: a name of a registry, or an http address."""
    return weights.startswith((TORCHVISION_SCHEME, TIMM_SCHEME, HUB_SCHEME)) or uris.protocol(weights) in (
        "http",
        "https",
    )


def find_weights(weights: str, *, out: str) -> str | None:
    """URI at which every node reaches weights: in `out` those that are published; None where they aren't there yet.

    Raises:
        ValueError: the registry has no such name.
    """
    if not is_published(weights):
        return weights
    uri = _copy(weights, out)
    return uri if storage.exists(uri) else None


def stage_weights(weights: str, *, out: str, preprocessing: Preprocessing | None = None) -> str:
    """Copies published weights into `out`, unless they are there; the driver calls it before workers start.

    Args:
        weights: a name of a registry, or any URI.
        out: folder of the run.
        preprocessing: of the network that takes them; weights whose registry knows that theirs is another are refused.

    Returns:
        URI of the copy; of weights that every node reaches as they are, the same URI.

    Raises:
        FileNotFoundError: they can't be downloaded.
        ValueError: the registry has no such name, or the weights were trained with another preprocessing.
    """
    if found := find_weights(weights, out=out):
        return found
    uri = _copy(weights, out)
    logger.info("weights: looking for %s", weights)
    if weights.startswith(TORCHVISION_SCHEME):
        load_torchvision_weights(weights)  # checks its hash
        data = cached_file(weights).read_bytes()
    elif weights.startswith((TIMM_SCHEME, HUB_SCHEME)):
        data = safetensors.torch.save(load_timm_weights(weights, preprocessing=preprocessing))
    else:
        data = storage.read_bytes(weights)
    storage.write_bytes_atomic(uri, data)
    logger.info("weights: %s is copied to %s", weights, uri)
    return uri


def _copy(weights: str, out: str) -> str:
    if weights.startswith(TORCHVISION_SCHEME):
        name = cached_file(weights).name  # holds a part of its hash
    else:
        name = f"{storage.digest(weights)}-{uris.name_of(weights) or 'weights'}"
    return storage.join(out, FOLDER, name)
