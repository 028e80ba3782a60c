"""VGG16 as AffinityNet's authors use it, at output stride 8.

Simonyan & Zisserman (2014), with DeepLab-LargeFOV's fc6 and fc7.
Max pools are 3x3 with strides 2, 2, 2, 1; conv5 is dilated by 2. fc6 is a 3x3 convolution with dilation 1 in the
classifier and 4 in AffinityNet. As in psa, conv1 and conv2 are frozen. Attribute names are those of psa's checkpoints.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone, check_output_stride, freeze
from raypipe.networks.preprocessing import CAFFE


class VGG16(Backbone):
    """Thirteen 3x3 convolutions with ReLU, then fc6 (3x3) and fc7 (1x1) of 1024 channels."""

    affinity_depths = ("conv4", "conv5", "fc7")
    preprocessing = CAFFE
    dropout = 0.5
    sqrt_cam = True

    def __init__(self, name: str = "vgg16", *, output_stride: int = 8, fc6_dilation: int = 1) -> None:
        check_output_stride(name, output_stride, self.output_strides)
        super().__init__(name=name, output_stride=output_stride, channels={"conv4": 512, "conv5": 512, "fc7": 1024})
        self.conv1_1 = nn.Conv2d(3, 64, 3, padding=1)
        self.conv1_2 = nn.Conv2d(64, 64, 3, padding=1)

        self.conv2_1 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv2_2 = nn.Conv2d(128, 128, 3, padding=1)

        self.conv3_1 = nn.Conv2d(128, 256, 3, padding=1)
        self.conv3_2 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv3_3 = nn.Conv2d(256, 256, 3, padding=1)

        self.conv4_1 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4_2 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv4_3 = nn.Conv2d(512, 512, 3, padding=1)

        self.conv5_1 = nn.Conv2d(512, 512, 3, padding=2, dilation=2)
        self.conv5_2 = nn.Conv2d(512, 512, 3, padding=2, dilation=2)
        self.conv5_3 = nn.Conv2d(512, 512, 3, padding=2, dilation=2)

        self.fc6 = nn.Conv2d(512, 1024, 3, padding=fc6_dilation, dilation=fc6_dilation)
        self.drop6 = nn.Dropout2d(0.5)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        freeze(self.conv1_1, self.conv1_2, self.conv2_1, self.conv2_2)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return conv4 (before its pool), conv5 and fc7, each after its ReLU."""
        x = _relu_chain(x, self.conv1_1, self.conv1_2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = _relu_chain(x, self.conv2_1, self.conv2_2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = _relu_chain(x, self.conv3_1, self.conv3_2, self.conv3_3)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        conv4 = _relu_chain(x, self.conv4_1, self.conv4_2, self.conv4_3)
        x = F.max_pool2d(conv4, 3, stride=1, padding=1)
        conv5 = _relu_chain(x, self.conv5_1, self.conv5_2, self.conv5_3)
        x = self.drop6(F.relu(self.fc6(conv5)))
        return {"conv4": conv4, "conv5": conv5, "fc7": F.relu(self.fc7(x))}


def _relu_chain(x: Tensor, *convolutions: nn.Conv2d) -> Tensor:
    for conv in convolutions:
        x = F.relu(conv(x))
    return x
