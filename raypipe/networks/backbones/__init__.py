"""Builds the feature extractors by name."""

import difflib
from typing import Any

from raypipe.networks.backbones.base import Backbone
from raypipe.networks.backbones.mobilenet_v2 import MobileNetV2
from raypipe.networks.backbones.resnet38 import ResNet38
from raypipe.networks.backbones.timm import PREFIX, TimmBackbone, timm_preprocessing
from raypipe.networks.backbones.tiny import Tiny
from raypipe.networks.backbones.torchvision import TorchvisionResNet
from raypipe.networks.backbones.vgg16 import VGG16
from raypipe.networks.preprocessing import Preprocessing

_CLASSES: dict[str, type[ResNet38 | VGG16 | TorchvisionResNet | MobileNetV2 | Tiny]] = {
    "resnet38": ResNet38,
    "vgg16": VGG16,
    "resnet18": TorchvisionResNet,
    "resnet34": TorchvisionResNet,
    "resnet50": TorchvisionResNet,
    "resnet101": TorchvisionResNet,
    "mobilenet_v2": MobileNetV2,
    "tiny": Tiny,
}

BACKBONES: tuple[str, ...] = tuple(_CLASSES)
"""Names that `build_backbone` knows besides `timm/NAME` and `timm/NAME.TAG`, of any network of timm."""


def build_backbone(name: str, *, output_stride: int = 8, **options: Any) -> Backbone:
    """Return a new backbone with random weights.

    Args:
        name: one of `BACKBONES`, or `timm/NAME`.
        output_stride: pixels per grid cell, 8 or (torchvision's and timm's networks) 16.
        options: arguments of this backbone's class only (`fc6_dilation` of vgg16).

    Raises:
        ValueError: an unknown name, or a stride that the backbone doesn't have.
    """
    if name.startswith(PREFIX):
        return TimmBackbone(name, output_stride=output_stride, **options)
    return _find(name)(name, output_stride=output_stride, **options)


def output_strides(name: str) -> tuple[int, ...]:
    """Return the output strides that a backbone can be built at.

    Raises:
        ValueError: an unknown name.
    """
    return TimmBackbone.output_strides if name.startswith(PREFIX) else _find(name).output_strides


def default_preprocessing(name: str) -> Preprocessing:
    """Return the preprocessing that a backbone's published weights were trained with.

    Raises:
        ValueError: an unknown name.
    """
    return timm_preprocessing(name) if name.startswith(PREFIX) else _find(name).preprocessing


def _find(name: str) -> type[ResNet38 | VGG16 | TorchvisionResNet | MobileNetV2 | Tiny]:
    if name not in _CLASSES:
        nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"no backbone is called {name!r}: {hint}choose one of {', '.join(BACKBONES)}, or timm/NAME")
    return _CLASSES[name]


__all__ = ["BACKBONES", "Backbone", "build_backbone", "default_preprocessing", "output_strides"]
