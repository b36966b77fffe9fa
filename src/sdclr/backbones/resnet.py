"""ResNets for small and large images whose blocks compute as torchvision's do, with torchvision's parameter names.

B images, S image size, F feature dim. ``stem="small"`` is the CIFAR stem of the paper: a 3x3 convolution with stride
1 and no max-pooling. Weights are Kaiming-normal (fan out); the last batch norm of a block is NOT zero-initialised.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """torchvision's block, to the bit; importing torchvision takes as long as importing torch."""

    expansion = 1

    def __init__(
        self, channels: int, planes: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """torchvision's block, to the bit: the 3x3 convolution has the stride (ResNet V1.5)."""

    expansion = 4

    def __init__(
        self, channels: int, planes: int, stride: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """Images [B, C, S, S] -> features [B, F], F = 8 * width * expansion (512 for resnet18 at width 64)."""

    def __init__(
        self,
        name: str,
        width: int = 64,
        stem: Literal["small", "large"] = "small",
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        block, depths = DEPTHS[name]
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        self.conv1 = nn.Conv2d(
            image_channels, width, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        channels, stages = width, []
        for stage, depth in enumerate(depths):
            planes = width * 2**stage
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                shortcut = _shortcut(channels, planes * block.expansion, stride)
                blocks.append(block(channels, planes, stride, shortcut))
                channels = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.reduction = 8 if stem == "small" else 32
        self.contiguous_tail = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.layer4(x.contiguous() if self.contiguous_tail else x)
        return self.avgpool(x).flatten(1)


def contiguous_tails(network: nn.Module, image_size: int) -> None:
    """Take the last stage of every wide ResNet inside ``network`` out of channels_last where its maps are tiny.

    On a CPU, oneDNN's channels_last convolutions of 512 channels and more take 1.4 times the contiguous ones' time on
    maps of 4 x 4 pixels: 8 % of a step of ResNet-18 at 32 px (benchmarks/NOTES.md).
    """
    for module in network.modules():
        if (
            isinstance(module, ResNet)
            and module.bn1.num_features >= 64
            and image_size <= 4 * module.reduction
        ):
            module.contiguous_tail = True
            module.layer4.to(memory_format=torch.contiguous_format)


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
