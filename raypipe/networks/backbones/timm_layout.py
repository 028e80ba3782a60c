"""Finds out how a network of timm is built: what it takes, which depths it has, and where their cells look.

None of this can be read off all of timm's networks, so it is tried on copies, once a process: one without values, whose
shapes and gradients tell strides and unused parts, and one whose kernels don't differ from place to place. The gradient
of a cell of that one spreads evenly around the pixel that the cell looks at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROBE_SIDE = 448
"""A multiple of all patches and strides: of 14, 16 and 32."""
STRIP = (384, 32)
"""Height and width in pixels of the image whose gradient shows where cells look: the height is what is measured."""
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
    # timm draws random weights, which must not change what a seed gives to those who come after.
    with torch.random.fork_rng(devices=[]):
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
            centres = _measure_centres(_build(architecture, output_stride)[1], indices)
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


def _measure_centres(model: nn.Module, indices: tuple[int, ...]) -> tuple[float, ...]:
    rng = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            taps = module.weight[0, 0].numel()
            drawn = torch.randn(module.weight.shape[:2], generator=rng) / (taps * module.weight.shape[1] ** 0.5)
            module.weight.data.copy_(drawn[:, :, None, None].expand_as(module.weight))
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
            nn.init.ones_(module.weight)  # timm starts some at 0, where a branch would show nothing
        elif type(module) is nn.MaxPool2d:  # of equal values, it would look at the first one alone
            module.forward = partial(_average, module)  # type: ignore[method-assign]
    x = torch.ones(1, 3, *STRIP, requires_grad=True)
    centres = []
    for features in read_maps(model, x, indices):
        rows = features.shape[-2]
        stride, row = STRIP[0] // rows, rows // 2
        (gradient,) = torch.autograd.grad(features[0, :, row].square().sum(), x, retain_graph=True)
        influence = gradient[0].double().abs().sum(dim=(0, 2))
        influence = influence - influence.min()  # what sees all of the image, such as squeeze and excite
        # The median: unlike the mean, it hardly depends on where the strip ends.
        below = influence.cumsum(dim=0) / influence.sum()
        middle = int((below < 0.5).sum())
        share = (below[middle] - 0.5) / (influence[middle] / influence.sum())
        centre = middle + 0.5 - share - stride * row
        centres.append(round(2 * centre.item()) / 2)
    return tuple(centres)


def _average(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    return F.avg_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode, count_include_pad=False
    )
