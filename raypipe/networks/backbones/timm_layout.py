"""Finds out how a network of timm is built: what it takes, which depths it has, and where their cells look.

None of this can be read off all of timm's networks, so it is tried on copies, once a process: on one without values,
whose shapes and gradients tell strides and unused parts, and on one that is measured by `measure_centres`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.networks.backbones.centres import measure_centres

PROBE_SIDE = 448
"""A multiple of all patches and strides: of 14, 16 and 32."""
SHALLOWEST = 4
"""Maps of a smaller stride aren't read."""
NUM_DEPTHS = 4


@dataclass(frozen=True)
class Layout:
    """What is known of a network at an output stride.

    Attributes:
        options: what timm is told to build it.
        indices: of the maps to read, as timm counts them.
        depths: names of these maps, shallow first.
        channels: of each of them.
        strides: pixels per cell of each.
        centres: the pixel that cell 0 of each looks at, to half a pixel.
        heads: names of the outermost parts that no map depends on: the ImageNet head.
        idle: names of other parameters that no map depends on.
    """

    options: Mapping[str, Any]
    indices: tuple[int, ...]
    depths: tuple[str, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    centres: tuple[float, ...]
    heads: tuple[str, ...]
    idle: tuple[str, ...]


@lru_cache
def find_layout(architecture: str, output_stride: int) -> Layout:
    """Return the layout of one of timm's networks; strides beyond the output stride are dilated where timm can.

    Raises:
        ValueError: it has no maps of three depths, or takes images of one size only.
    """
    # timm draws random weights, which must not change what a seed gives to those who come after. Gradients show where
    # cells look, also where the caller wants none.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False), torch.enable_grad():
        return _find(architecture, output_stride)


def read_maps(model: nn.Module, x: Tensor, indices: tuple[int, ...]) -> list[Tensor]:
    """Return the maps (B, C, h, w) of a network's depths.

    The last one is what the network's own head reads, even where a convolution and BatchNorm follow the last block, as
    in EfficientNet.
    """
    if not hasattr(model, "forward_intermediates"):
        every: list[Tensor] = model(x)
        return [every[index] for index in indices]
    final, maps = model.forward_intermediates(x, indices=list(indices), norm=True, output_fmt="NCHW")  # type: ignore[operator]
    if final.ndim == 4 and final.shape[-2:] == maps[-1].shape[-2:]:
        maps = [*maps[:-1], final]
    return list(maps)


def _find(architecture: str, output_stride: int) -> Layout:
    problem = f"timm/{architecture} can't be a backbone here"
    with torch.device("meta"):
        options, model = _build(architecture, output_stride)
        whole = _create(architecture, {}) if "features_only" in options else model
    names, indices = _choose_depths(model)
    if len(indices) < 3:
        raise ValueError(f"{problem}: AffinityNet reads three depths, it has {len(indices)}; choose another network")
    try:
        maps = read_maps(model, torch.empty(2, 3, PROBE_SIDE, PROBE_SIDE, device="meta"), indices)
    except (RuntimeError, AssertionError, ValueError, AttributeError, TypeError) as error:
        text = str(error).strip().splitlines()[0]
        raise ValueError(f"{problem}, as it doesn't take images of every size ({text}); choose another") from error
    if any(PROBE_SIDE % each.shape[-1] for each in maps):
        raise ValueError(f"{problem}, as its maps don't cover the image evenly; choose another network")
    strides = tuple(PROBE_SIDE // each.shape[-1] for each in maps)
    if any("attention" in type(module).__name__.lower() for module in model.modules()):
        centres = tuple((stride - 1) / 2 for stride in strides)
    else:
        with torch.device("cpu"):
            copy = _build(architecture, output_stride)[1]
            centres = measure_centres(copy, lambda x: read_maps(copy, x, indices))
    torch.autograd.backward([each.float().sum() for each in maps])
    used = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    roots = {name.split(".")[0] for name in used}
    return Layout(
        options=options,
        indices=indices,
        depths=names,
        channels=tuple(each.shape[1] for each in maps),
        strides=strides,
        centres=centres,
        heads=tuple(sorted({name.split(".")[0] for name, _ in whole.named_parameters()} - roots)),
        idle=tuple(name for name, _ in model.named_parameters() if name not in used and name.split(".")[0] in roots),
    )


def _build(architecture: str, output_stride: int) -> tuple[Mapping[str, Any], nn.Module]:
    dilated = {"output_stride": output_stride}
    # In this order: dilated (MobileNetV3 is where only its features are asked for), position embeddings of any size,
    # windows of any size, as it is.
    ways: tuple[dict[str, Any], ...] = (
        dilated,
        dilated | {"features_only": True},
        {"dynamic_img_size": True},
        {"strict_img_size": False},
        {},
    )
    refused = ""
    for options in ways:
        try:
            model = _create(architecture, options)
        except (TypeError, AssertionError, NotImplementedError, RuntimeError) as error:
            refused = str(error)
        else:
            return options, model
    raise ValueError(f"timm/{architecture} can't be built ({refused}); choose another network")


def _create(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    import timm  # takes seconds, and not every process builds one

    model: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    return model.eval()


def _choose_depths(model: nn.Module) -> tuple[tuple[str, ...], tuple[int, ...]]:
    infos: list[dict[str, Any]] = list(getattr(model.feature_info, "info", model.feature_info))  # type: ignore[arg-type]
    coarse = [index for index, info in enumerate(infos) if info["reduction"] >= SHALLOWEST]
    if len({infos[index]["reduction"] for index in coarse}) == 1:  # all of one stride, as in ViTs: four quarters
        chosen = [coarse[len(coarse) * part // NUM_DEPTHS - 1] for part in range(1, NUM_DEPTHS + 1)]
    else:
        chosen = coarse[-NUM_DEPTHS:]
    return tuple(infos[index]["module"].replace(".", "_") for index in chosen), tuple(chosen)
