"""torchvision's ResNets (He et al., 2015), dilated to output stride 8 or 16, with centred cells.

Their layers are padded on both sides, so that cell i looks at the pixel 8i, half a cell off the centre of the pixels
that it stands for. Images are padded by half a cell at the top and left, and the first row and column of cells is
dropped: cell i then looks at 8i + 4, half a pixel off.

As in irn, the stem's convolution is frozen, and so is every BatchNorm. Attribute names are torchvision's.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.networks.backbones.base import Backbone, FrozenBatchNorm2d, dilate, freeze, halve
from raypipe.networks.backbones.placing import place
from raypipe.networks.preprocessing import IMAGENET


class TorchvisionResNet(Backbone):
    """resnet18, resnet34, resnet50 or resnet101; layer1 is at stride 4 and is averaged down to the grid."""

    affinity_depths = ("layer2", "layer3", "layer4")
    preprocessing = IMAGENET
    output_strides = (8, 16)
    foreign_heads = ("fc.",)

    def __init__(self, name: str, *, output_stride: int = 8) -> None:
        import torchvision  # takes seconds, and not every process builds one

        net = torchvision.models.get_model(name, weights=None, norm_layer=FrozenBatchNorm2d)
        width = net.fc.in_features // 8
        channels = {"layer1": width, "layer2": 2 * width, "layer3": 4 * width, "layer4": 8 * width}
        super().__init__(name=name, output_stride=output_stride, channels=channels)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        dilate(self.layer1, self.layer2, self.layer3, self.layer4, input_stride=4, output_stride=output_stride)
        freeze(self.conv1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return the outputs of layer1 to layer4."""
        stride, lead = self.output_stride, self.output_stride // 2
        height, width = (-(-side // stride) for side in x.shape[-2:])
        x = F.pad(x, (lead, width * stride - x.shape[-1], lead, height * stride - x.shape[-2]))
        layer1 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        maps = {
            "layer1": halve(layer1, times=1 if stride == 8 else 2),
            "layer2": halve(layer2, times=0 if stride == 8 else 1),
            "layer3": layer3,
            "layer4": self.layer4(layer3),
        }
        return {
            depth: place(each, (height, width), stride=stride, centre=float(-lead), output_stride=stride)
            for depth, each in maps.items()
        }
