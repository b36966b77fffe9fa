"""Networks as a user would write them, outside of the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TinyNet(nn.Module):
    """Two convolutions; features [B, 2 * width]."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.norm(self.first(images)).relu()).mean(dim=(2, 3))


def noisy_net() -> nn.Module:
    """A part that no state_dict holds is drawn at random: another network after it was loaded."""
    network = TinyNet()
    network.scale = torch.rand(())  # type: ignore[assignment]
    network.register_forward_hook(lambda module, _, out: out * module.scale)
    return network


def no_net() -> str:
    """Not a network at all."""
    return "a network"
