"""Loads weights from a file, torchvision's or timm's registry into a network: by name, strictly.

Conventions: names are those of psa's, torchvision's and timm's published checkpoints. This package's own checkpoints
have the same names after `backbone.`, timm's after `backbone.model.`. Those prefixes, DistributedDataParallel's
`module.` and BatchNorm's batch counters are ignored on both sides. Files are read as safetensors or with
`weights_only=True`: tensors, never code.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from raypipe.networks.backbones import BACKBONES, build_backbone
from raypipe.networks.network import Network
from raypipe.networks.registry import TORCHVISION_SCHEME, load_torchvision_weights
from raypipe.networks.timm_registry import HUB_SCHEME, TIMM_SCHEME, load_timm_weights
from raypipe.tensors import load_tensors

logger = logging.getLogger(__name__)

HEAD_PREFIXES = ("fc8.", "f8_3.", "f8_4.", "f8_5.", "gn8_3.", "gn8_4.", "gn8_5.", "f9.", "head.", "refit.")
"""A weight whose name begins with one of these belongs to the head of one of this package's networks, or of psa's."""

_CONTAINERS = ("state_dict", "model")
_COUNTER = ".num_batches_tracked"
_NUM_SHOWN = 4


def load_weights(
    module: Network, uri: str | Path, *, read: Callable[[str], bytes], require_head: bool = False
) -> tuple[str, ...]:
    """Copy a checkpoint's weights into the network, in place.

    The checkpoint must hold every weight of the backbone in the right shape, and no unknown ones. It may lack the whole
    head, as a checkpoint pretrained on ImageNet does; the head then keeps its initial weights. Other networks' heads
    (ImageNet's, or a classifier's when the network is an AffinityNet) are dropped. Both are logged.

    Args:
        module: a classifier or an AffinityNet.
        uri: what `read` takes, or a name of a registry: `torchvision://resnet50/IMAGENET1K_V2`, `timm://NAME.TAG`,
            `hf-hub://OWNER/NAME`.
        read: returns the bytes of a file, as `storage.read_bytes` does.
        require_head: refuse a checkpoint without this network's head. At inference, nobody would notice random weights.

    Returns:
        The names that kept their initial values.

    Raises:
        FileNotFoundError: there is no such file, or it can't be downloaded.
        ValueError: the file is no checkpoint, one of another architecture, whose differences the message names, or one
            with NaN or infinity.
    """
    return load_state(module, read_state_dict(uri, read=read), source=str(uri), require_head=require_head)


def load_state(
    module: Network, state: Mapping[str, Tensor], *, source: str, require_head: bool = False
) -> tuple[str, ...]:
    """Copy tensors into the network, in place, by the rules of `load_weights`.

    Args:
        module: a classifier or an AffinityNet.
        state: tensors by name.
        source: where the tensors come from, for messages.
        require_head: see `load_weights`.
    """
    state = _shorten(state)
    own = {_short_name(name): name for name in module.state_dict() if not name.endswith(_COUNTER)}
    own_heads = {name for name in own if name.split(".")[0] in module.heads}
    foreign_heads = module.backbone.foreign_heads + HEAD_PREFIXES

    dropped = [name for name in state if name not in own and name.startswith(foreign_heads)]
    given = {name: tensor for name, tensor in state.items() if name not in dropped}
    missing = [name for name in own if name not in given]
    kept = tuple(missing) if set(missing) == own_heads and not require_head else ()

    current = module.state_dict()
    problems = _describe_problems(
        missing=[name for name in missing if name not in kept],
        unexpected=[name for name in given if name not in own],
        mismatched=[
            f"{name} {tuple(tensor.shape)} instead of {tuple(current[own[name]].shape)}"
            for name, tensor in given.items()
            if name in own and tensor.shape != current[own[name]].shape
        ],
    )
    check_finite(given, source=source)
    if problems:
        network = f"{type(module).__name__} of {module.backbone.name}"
        raise ValueError(f"{source} doesn't fit the {network}: {problems}. {_find_way_out(module, given)}")

    module.load_state_dict(current | {own[name]: tensor for name, tensor in given.items()})
    if dropped:
        logger.info("%s: the head for its own classes is left out, as it should be: %s", source, ", ".join(dropped))
    if kept:
        logger.info("%s: the head of this network begins with initial weights: %s", source, ", ".join(kept))
    return kept


def check_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Raise ValueError, with names, if tensors hold NaN or infinity: every output of such a network would.

    Args:
        state: tensors by name.
        source: where the tensors come from.
    """
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        more = ", …" if len(broken) > _NUM_SHOWN else ""
        raise ValueError(
            f"{source} holds NaN or infinity in {len(broken)} of {len(state)} tensors ({', '.join(broken[:_NUM_SHOWN])}"
            f"{more}): its training diverged, or the file is damaged. Bring other weights, or train it again with a "
            "lower learning rate"
        )


def read_state_dict(uri: str | Path, *, read: Callable[[str], bytes]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by short name (see the module's conventions); arguments as of `load_weights`.

    Raises:
        FileNotFoundError: there is no such file, or it can't be downloaded.
        ValueError: the file holds no state dict.
    """
    uri = str(uri)
    if uri.startswith(TORCHVISION_SCHEME):
        content: object = load_torchvision_weights(uri)
    elif uri.startswith((TIMM_SCHEME, HUB_SCHEME)):
        content = load_timm_weights(uri)
    else:
        content = _read_file(uri, read)
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{uri} holds no weights: expected tensors by name, such as module.state_dict()")
    return _shorten(content)


def _read_file(uri: str, read: Callable[[str], bytes]) -> object:
    try:
        data = read(uri)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no weights at {uri}: give the path or URI of a checkpoint") from error
    return load_tensors(data, source=uri)


def _shorten(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_short_name(name): tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


def _short_name(name: str) -> str:
    return name.removeprefix("module.").removeprefix("backbone.").removeprefix("model.")


def _describe_problems(**groups: list[str]) -> str:
    texts = []
    for kind, names in groups.items():
        more = ", …" if len(names) > _NUM_SHOWN else ""
        if names:
            texts.append(f"{len(names)} {kind} ({', '.join(names[:_NUM_SHOWN])}{more})")
    return "; ".join(texts)


def _find_way_out(module: Network, given: Mapping[str, Tensor]) -> str:
    """Suggest the largest backbone whose weights are all in the checkpoint."""
    fitting = []
    for name in BACKBONES:
        with torch.device("meta"):
            weights = build_backbone(name).state_dict()
        names = {key: value.shape for key, value in weights.items() if not key.endswith(_COUNTER)}
        if all(key in given and given[key].shape == shape for key, shape in names.items()):
            fitting.append((len(names), name))
    found = max(fitting)[1] if fitting else None
    if found == module.backbone.name:
        return "The backbone's weights fit: to start with a new head, leave all of the head's weights out of the file."
    wanted = f"weights of {module.backbone.name} with the names of its published checkpoint"
    if found is not None:
        return f'It looks like a checkpoint of {found}: use backbone="{found}", or bring {wanted}.'
    return f"Bring {wanted}."
