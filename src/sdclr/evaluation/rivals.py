"""Baselines without any training: plain features of an image, as networks without weights.

B images, S image size, F feature dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8
"""Side in pixels to which an image is reduced."""
LEVELS = 4
"""Levels of each colour in a histogram: 64 bins."""


class _WithoutWeights(nn.Module):
    """Features are computed on the device of a parameter; this one only marks the device."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)


class Pixels(_WithoutWeights):
    """The image itself, reduced to 8 x 8: [B, C, S, S] in [0, 1] -> [B, 64 C].

    >>> Pixels()(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 192])
    """

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, SIDE).flatten(1)


class Colours(_WithoutWeights):
    """A histogram of colours, 4 levels of red, green and blue: [B, 3, S, S] in [0, 1] -> [B, 64], sums of 1.

    >>> Colours()(torch.zeros(1, 3, 4, 4))[0, 0].item()
    1.0
    """

    def forward(self, images: Tensor) -> Tensor:
        levels = (images * LEVELS).long().clamp(0, LEVELS - 1)
        weights = images.new_tensor([LEVELS**2, LEVELS, 1]).long().view(1, 3, 1, 1)
        bins = (levels * weights).sum(dim=1).flatten(1)  # [B, S * S]
        counts = torch.zeros(len(images), LEVELS**3, dtype=images.dtype, device=images.device)
        return (
            counts.scatter_add(1, bins, torch.ones_like(bins, dtype=images.dtype)) / bins.shape[1]
        )
