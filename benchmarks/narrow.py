"""A ResNet-18 of a quarter of its width, for LeRobot's policies at the size of our nano preset.

The smallest backbone that ACT and Diffusion Policy offer has 11 M parameters, four times those of all of nano. They
name a backbone by its function in torchvision's module, so importing this file is what makes `resnet18_narrow` one.
"""

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

NARROW = "resnet18_narrow"
WIDTH = 16


def narrow_resnet18(
    weights: None = None, norm_layer: type[nn.Module] = nn.BatchNorm2d, replace_stride_with_dilation: object = None
) -> ResNet:
    """ResNet-18 with 16 instead of 64 channels in its first stage, 0.7 M instead of 11.2 M parameters."""
    with torch.device("meta"):  # every part of it that has weights is replaced
        net = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=norm_layer)
    net.inplanes = WIDTH
    net.conv1 = nn.Conv2d(3, WIDTH, kernel_size=7, stride=2, padding=3, bias=False)
    net.bn1 = norm_layer(WIDTH)
    net.layer1 = net._make_layer(BasicBlock, WIDTH, 2)
    net.layer2 = net._make_layer(BasicBlock, 2 * WIDTH, 2, stride=2)
    net.layer3 = net._make_layer(BasicBlock, 4 * WIDTH, 2, stride=2)
    net.layer4 = net._make_layer(BasicBlock, 8 * WIDTH, 2, stride=2)
    net.fc = nn.Linear(8 * WIDTH, 1)
    return net


torchvision.models.resnet18_narrow = narrow_resnet18
