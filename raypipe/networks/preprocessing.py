"""Normalises 8-bit RGB pixels as in a network's training.

Conventions: images come as RGB; `mean` and `std` are in the network's own channel order (BGR networks have BGR means).
Zero padding after normalisation stands for the mean colour; `fill` is that colour as 8-bit RGB.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The normalisation x_c = (scale * pixel_c - mean_c) / std_c.

    Attributes:
        channel_order: "rgb" or "bgr": the order of the network's input channels, and of `mean` and `std`.
        scale: factor of the 0..255 pixel values.
        mean: what is subtracted after scaling.
        std: positive divisors.

    Raises:
        ValueError: an attribute has an impossible value.
    """

    channel_order: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f'expected channel_order "rgb" or "bgr", got {self.channel_order!r}')
        if self.scale <= 0 or min(self.std) <= 0:
            raise ValueError(
                f"expected a positive scale and positive standard deviations, got scale {self.scale}, std {self.std}"
            )

    def normalize(self, pixels: UInt8[Tensor, "B 3 H W"]) -> Float32[Tensor, "B 3 H W"]:
        """Return the network's input for a batch of 8-bit RGB images."""
        channels = pixels.unbind(1) if self.channel_order == "rgb" else pixels.flip(1).unbind(1)
        # Python scalars rather than (3,) tensors, so that a GPU needn't wait for a copy from the host.
        normalized = [
            (channel.float() * self.scale - mean) / std
            for channel, mean, std in zip(channels, self.mean, self.std, strict=True)
        ]
        return torch.stack(normalized, dim=1)

    @property
    def fill(self) -> UInt8[np.ndarray, "3"]:
        """The 8-bit RGB colour that becomes about zero."""
        colour = np.round(np.asarray(self.mean) / self.scale).clip(0, 255).astype(np.uint8)
        return colour if self.channel_order == "rgb" else colour[::-1].copy()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's metadata."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing that `to_dict` described.

        Raises:
            ValueError: an attribute has an impossible value.
        """
        mean, std = tuple(values["mean"]), tuple(values["std"])
        if len(mean) != 3 or len(std) != 3:
            raise ValueError(f"expected three values of mean and of std, got {mean} and {std}")
        return cls(channel_order=values["channel_order"], scale=values["scale"], mean=mean, std=std)


IMAGENET = Preprocessing()
"""For torchvision's weights and psa's ResNet38: RGB in 0..1, ImageNet's mean and deviation."""

CAFFE = Preprocessing(channel_order="bgr", scale=1.0, mean=(104.008, 116.669, 122.675), std=(1.0, 1.0, 1.0))
"""For psa's VGG16: BGR in 0..255 minus the mean colour."""

TENSORFLOW = Preprocessing(scale=1 / 127.5, mean=(1.0, 1.0, 1.0), std=(1.0, 1.0, 1.0))
"""For TensorFlow's MobileNets: RGB in -1..1."""

PREPROCESSINGS: dict[str, Preprocessing] = {"imagenet": IMAGENET, "caffe": CAFFE, "tensorflow": TENSORFLOW}
"""Presets by name, for configurations."""

NamedOrNumbers = str | tuple[float | tuple[float, float, float], float | tuple[float, float, float]]
"""A preset's name, or mean and deviation of pixels of 0 to 255, each one number or one a channel (RGB)."""


def preprocessing_of(given: NamedOrNumbers) -> Preprocessing:
    """Return the preset of a name, or x = (pixel - mean) / std.

    Raises:
        ValueError: a deviation isn't positive.
    """
    if isinstance(given, str):
        return PREPROCESSINGS[given]
    mean, std = (each if isinstance(each, tuple) else (each, each, each) for each in given)
    return Preprocessing(scale=1.0, mean=mean, std=std)
