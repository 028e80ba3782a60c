"""What all sections of a config have in common."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Backbone = Literal["resnet38", "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "tiny"]

Precision = Literal["auto", "fp32", "bf16"]

Start = Literal["pretrained", "classifier"]
"""Weights that a training starts from: those of `network.weights`, or the trained classifier's."""

Jitter = tuple[float, float, float, float]
"""Colour jitter of training crops: brightness, contrast, saturation, hue."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
