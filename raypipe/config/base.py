"""What all sections of a config have in common."""

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

BACKBONES = ("resnet38", "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "tiny")


def _backbone(name: str) -> str:
    if name in BACKBONES or re.fullmatch(r"timm/\w+(\.[\w.-]+)?", name):
        return name
    nearest = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    allowed = ", ".join(BACKBONES)
    raise ValueError(f"allowed are {allowed}, or timm/NAME and timm/NAME.TAG of any network of timm.{hint}")


Backbone = Annotated[str, AfterValidator(_backbone)]
"""Whether timm has such a network shows where it is built: this layer knows no networks."""

Precision = Literal["auto", "fp32", "bf16"]

Start = Literal["pretrained", "classifier"]
"""Weights that a training starts from: those of `network.weights`, or the trained classifier's."""

Jitter = tuple[float, float, float, float]
"""Colour jitter of training crops: brightness, contrast, saturation, hue."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
