"""Any network of timm (https://github.com/huggingface/pytorch-image-models) whose depths give maps: ConvNets and ViTs.

ConvNets are dilated to the output stride where timm can; maps of any other stride, such as the patches of ViTs, are
resampled to the grid. Images are padded at the left and top so that the cells of the last depth look at their own
centres, to half a pixel, and at the right and bottom to whole patches. As in the other networks, the stem and every
BatchNorm are frozen; other normalisations train. Names of weights are timm's.
"""

import difflib
import re
from functools import lru_cache

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone, convolves_plainly, freeze_batchnorm
from raypipe.networks.backbones.placing import place
from raypipe.networks.backbones.timm_layout import find_layout, read_maps
from raypipe.networks.preprocessing import Preprocessing

PREFIX = "timm/"
"""Begins the names of these backbones: `timm/resnet50`, or `timm/resnet50.a1_in1k` with the tag of its weights."""


class TimmBackbone(Backbone):
    """A network of timm, without its ImageNet head."""

    output_strides = (8, 16)

    def __init__(self, name: str, *, output_stride: int = 8) -> None:
        import timm  # takes seconds, and not every process builds one

        if output_stride not in self.output_strides:
            raise ValueError(f"expected output_stride 8 or 16 for {name}, got {output_stride}")
        architecture = check_name(name).partition(".")[0]
        layout = find_layout(architecture, output_stride)
        super().__init__(
            name=name,
            output_stride=output_stride,
            channels=dict(zip(layout.depths, layout.channels, strict=True)),
        )
        self.layout = layout
        self.preprocessing = timm_preprocessing(name)
        self.affinity_depths = (layout.depths[-3], layout.depths[-2], layout.depths[-1])
        self.foreign_heads = tuple(f"{head}." for head in layout.heads)
        self.model = timm.create_model(architecture, pretrained=False, **layout.options)
        for head in layout.heads:
            if hasattr(self.model, head):
                setattr(self.model, head, nn.Identity() if isinstance(getattr(self.model, head), nn.Module) else None)
        freeze_batchnorm(self.model)
        stem = _stem(self.model)
        for parameter_name, parameter in self.model.named_parameters():
            if parameter_name in layout.idle or stem.match(parameter_name):
                parameter.requires_grad = False
        self.float32_weights = tuple(
            f"model.{module_name}"
            for module_name, module in self.model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            and not convolves_plainly(module)
            and type(module) is not nn.Linear
        )
        too_far = layout.centres[-1] - (output_stride - 1) / 2
        self._lead = int(too_far + 0.5) if too_far >= 0 else -int(0.5 - too_far) % output_stride
        if layout.strides[-1] != output_stride:
            self._lead = 0  # it is resampled anyway

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return the maps of four depths."""
        grid = tuple(-(-side // self.output_stride) for side in x.shape[-2:])
        whole = max(self.layout.strides)
        (top, bottom), (left, right) = (
            (self._lead, -(-(self._lead + self.output_stride * cells) // whole) * whole - self._lead - side)
            for cells, side in zip(grid, x.shape[-2:], strict=True)
        )
        maps = read_maps(self.model, F.pad(x, (left, right, top, bottom)), self.layout.indices)
        return {
            depth: place(
                features,
                (grid[0], grid[1]),
                stride=stride,
                centre=centre - self._lead,
                output_stride=self.output_stride,
            )
            for depth, features, stride, centre in zip(
                self.layout.depths, maps, self.layout.strides, self.layout.centres, strict=True
            )
        }


@lru_cache
def check_name(name: str) -> str:
    """Return timm's name of a backbone, `NAME` or `NAME.TAG`.

    Raises:
        ValueError: timm has no such network, or no weights of this tag; the message has the nearest names.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbone {name} needs timm: run pip install timm") from error
    full = name.removeprefix(PREFIX)
    architecture, _, tag = full.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(PREFIX + each for each in near)}? " if near else ""
        raise ValueError(
            f"timm {timm.__version__} has no network {architecture!r}: {hint}timm.list_models() lists them"
        )
    tagged = [each for each in timm.list_pretrained(f"{architecture}.*") if each.partition(".")[0] == architecture]
    if tag and full not in tagged:
        choices = ", ".join(PREFIX + each for each in tagged) or "none"
        raise ValueError(f"timm {timm.__version__} has no weights {full!r}; of {architecture} it has {choices}")
    return full


def timm_preprocessing(name: str) -> Preprocessing:
    """Return the normalisation that timm's weights of a name were trained with; without a tag, those of its first one.

    Raises:
        ValueError: as `check_name`.
    """
    import timm

    config = timm.get_pretrained_cfg(check_name(name))
    if config is None:
        return Preprocessing()
    (red, green, blue), deviations = config.mean, config.std
    return Preprocessing(mean=(red, green, blue), std=(deviations[0], deviations[1], deviations[2]))


def _stem(model: nn.Module) -> re.Pattern[str]:
    if not hasattr(model, "group_matcher"):
        return re.compile(r"(?!)")
    found = model.group_matcher(coarse=True)["stem"]  # type: ignore[operator]
    patterns = [found] if isinstance(found, str) else [each if isinstance(each, str) else each[0] for each in found]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
