"""Finds pretrained weights in timm's registry (`timm://NAME.TAG`) and the Hugging Face hub (`hf-hub://OWNER/NAME`).

timm turns their names and shapes into those of its networks. It reads safetensors, or pickles with `weights_only`:
nothing that is downloaded is run.
"""

import math
from typing import Any

import torch
from torch import Tensor

from raypipe.networks.backbones.timm import check_name
from raypipe.networks.preprocessing import Preprocessing

TIMM_SCHEME = "timm://"
HUB_SCHEME = "hf-hub://"


def load_timm_weights(uri: str, *, preprocessing: Preprocessing | None = None) -> dict[str, Tensor]:
    """Return published weights by timm's names, downloaded once into the Hugging Face hub's cache.

    Args:
        uri: `timm://NAME.TAG` or `hf-hub://OWNER/NAME`.
        preprocessing: what the network that takes them will be given; None takes any.

    Raises:
        FileNotFoundError: the weights are neither in the cache nor can they be downloaded.
        ValueError: timm has no such weights, or they were trained with another preprocessing.
    """
    import timm  # takes seconds, and few processes look a name up

    name = _timm_name(uri)
    with torch.random.fork_rng(devices=[]):
        try:
            model: Any = timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FileNotFoundError(
                f"{uri} can't be downloaded ({reason}). Bring model.safetensors of that repository from a machine that "
                "can, and give its path or URI instead"
            ) from error
    config = model.pretrained_cfg
    trained = Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]))
    if preprocessing is not None and not _are_same(preprocessing, trained):
        raise ValueError(
            f"{uri} was trained with mean {trained.mean} and std {trained.std}, the network would be given mean "
            f"{preprocessing.mean} and std {preprocessing.std}: name the backbone with its tag (timm/NAME.TAG), or set "
            "network.preprocessing and bring the weights as a file"
        )
    state: dict[str, Tensor] = model.state_dict()
    return state


def _are_same(first: Preprocessing, second: Preprocessing) -> bool:
    """Whether two preprocessings make the same of a pixel, whatever the scale that they are written at."""
    values = ([each / given.scale for each in (*given.mean, *given.std)] for given in (first, second))
    equal = all(math.isclose(*pair, rel_tol=1e-4) for pair in zip(*values, strict=True))
    return equal and first.channel_order == second.channel_order


def is_cached(uri: str) -> bool:
    """Return True if this machine's cache of the Hugging Face hub has the weights.

    Raises:
        ValueError: timm has no such weights.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = _timm_name(uri).removeprefix("hf-hub:").partition("@")
    if uri.startswith(TIMM_SCHEME):
        config = timm.get_pretrained_cfg(repository)
        repository = config.hf_hub_id if config is not None and config.hf_hub_id else ""
    return any(
        isinstance(try_to_load_from_cache(repository, name, revision=revision or None), str)
        for name in ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
        if repository
    )


def _timm_name(uri: str) -> str:
    if uri.startswith(HUB_SCHEME):
        return f"hf-hub:{uri.removeprefix(HUB_SCHEME)}"
    name = check_name(uri.removeprefix(TIMM_SCHEME))
    if "." not in name:
        raise ValueError(f"{uri} names no weights: expected timm://NAME.TAG, as timm.list_pretrained() lists them")
    return name
