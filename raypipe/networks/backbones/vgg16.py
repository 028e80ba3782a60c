"""VGG16 as AffinityNet's authors use it, at output stride 8.

Simonyan & Zisserman (2014), with DeepLab-LargeFOV's fc6 and fc7.
Max pools are 3x3 with strides 2, 2, 2, 1; conv5 is dilated by 2. fc6 is a 3x3 convolution with dilation 1 in the
classifier and 4 in AffinityNet. As in psa, conv1 and conv2 are frozen. Attribute names are those of psa's checkpoints.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone, freeze
from raypipe.networks.preprocessing import CAFFE


class VGG16(Backbone):
    """Thirteen 3x3 convolutions with ReLU, then fc6 (3x3) and fc7 (1x1) of 1024 channels."""

    affinity_depths = ("conv4", "conv5", "fc7")
    preprocessing = CAFFE
    dropout = 0.5
    sqrt_cam = True

    def __init__(self, name: str = "vgg16", *, output_stride: int = 8, fc6_dilation: int = 1) -> None:
        super().__init__(name=name, output_stride=output_stride, channels={"conv4": 512, "conv5": 512, "fc7": 1024})
        channels = 3
        for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
            dilation = 2 if stage == 5 else 1
            for number in range(1, depth + 1):
                conv = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation)
                self.add_module(f"conv{stage}_{number}", conv)
                channels = width
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=fc6_dilation, dilation=fc6_dilation)
        self.drop6 = nn.Dropout2d(0.5)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        freeze(*self._stage(1), *self._stage(2))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return conv4 (before its pool), conv5 and fc7, each after its ReLU."""
        for stage in range(1, 6):
            if stage > 1:
                x = F.max_pool2d(x, 3, stride=1 if stage == 5 else 2, padding=1)
            for conv in self._stage(stage):
                x = F.relu(conv(x))
            if stage == 4:
                conv4 = x
        fc6 = self.drop6(F.relu(self.fc6(x)))
        return {"conv4": conv4, "conv5": x, "fc7": F.relu(self.fc7(fc6))}

    def _stage(self, stage: int) -> list[nn.Module]:
        return [module for name, module in self.named_children() if name.startswith(f"conv{stage}_")]
