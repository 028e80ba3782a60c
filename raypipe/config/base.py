"""What all sections of a config have in common."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Backbone = Literal["resnet38", "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "tiny"]

Precision = Literal["auto", "fp32", "bf16"]

CLASSIFIER = "classifier"
"""Value of affinity.weights: start from the trained classifier."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
