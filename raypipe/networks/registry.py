"""Finds pretrained weights in torchvision's registry by a URI such as `torchvision://resnet50/IMAGENET1K_V2`."""

import difflib
import sys
from contextlib import redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

TORCHVISION_SCHEME = "torchvision://"


def load_torchvision_weights(uri: str) -> dict[str, Tensor]:
    """Return published weights, downloaded once into torch.hub's cache.

    Raises:
        FileNotFoundError: the weights are neither in the cache nor can they be downloaded; the message names the file
            and its place.
        ValueError: the registry has no such model or weights.
    """
    weights, cached = _find(uri)
    try:
        with redirect_stdout(sys.stderr):  # torch.hub says that it downloads, among a command's results
            state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise FileNotFoundError(
            f"{uri} can't be downloaded from {weights.url} ({error}). Bring the file {cached.name} from a machine "
            f"that can, and put it at {cached}, or give its own path or URI instead"
        ) from error
    return state


def cached_file(uri: str) -> Path:
    """Return the path at which this machine's torch.hub cache keeps published weights after their download.

    Raises:
        ValueError: the registry has no such model or weights.
    """
    return _find(uri)[1]


def _find(uri: str) -> tuple[Any, Path]:
    import torchvision  # takes seconds, and few processes look a name up

    model, _, version = uri.removeprefix(TORCHVISION_SCHEME).partition("/")
    models = torchvision.models.list_models(module=torchvision.models)
    if model not in models:
        nearest = difflib.get_close_matches(model, models, n=1)
        hint = f": did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{uri}: torchvision has no model {model!r}{hint}")
    versions = torchvision.models.get_model_weights(model)
    if version not in versions.__members__:
        available = ", ".join(f"{TORCHVISION_SCHEME}{model}/{name}" for name in versions.__members__)
        raise ValueError(f"{uri}: torchvision has no weights {version!r} of {model}: choose one of {available}")
    weights = versions[version]
    return weights, Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(weights.url).name
