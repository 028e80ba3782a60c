"""Base class of the networks: a backbone, a new head, and the inputs' preprocessing."""

from abc import ABC
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

from torch import nn

from raypipe.networks.backbones import Backbone
from raypipe.networks.preprocessing import Preprocessing


class Network(nn.Module, ABC):
    """A backbone with a head that starts from random weights.

    Attributes:
        heads: names of the head's modules. A checkpoint may lack all of them, but not some.
        backbone: the feature extractor.
        preprocessing: how 8-bit images become inputs; it is stored in the checkpoint. It is the backbone's, unless it
            is set to the one that other weights were trained with.
    """

    heads: ClassVar[tuple[str, ...]]

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing: Preprocessing = backbone.preprocessing

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that start from random weights; the papers train them at ten times the learning rate."""
        if self.backbone.starts_from_scratch:
            return self.parameters()
        heads = (module for name, module in self.named_children() if name in self.heads)
        return chain.from_iterable(module.parameters() for module in heads)


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError unless there is at least one object class."""
    if num_classes < 1:
        raise ValueError(f"expected at least one object class, got num_classes={num_classes}")
