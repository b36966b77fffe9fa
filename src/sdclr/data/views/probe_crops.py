"""The random crops on which the paper's linear probe trains its classifier.

B images, C channels, S side in pixels. Small images are shifted after zero padding; large ones (ImageNet) are cut by a
random-resized crop. Every draw is a pure function of (seed, epoch, image index).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.data.views.parameters import NUM_CROP_UNIFORMS, crop_boxes


def padded_crops(
    images: Tensor, index: Tensor, padding: int, flip: bool, *, seed: int, epoch: int
) -> Tensor:
    """uint8 [B, C, S, S]: images shifted by up to ``padding`` pixels (zeros come in); with ``flip``, half flipped."""
    side, device = images.shape[-1], images.device
    u = uniforms(derive(seed, Stream.PROBE, epoch, 1), index, 3).to(device)  # [B, 3]
    shift = (u[:, :2] * (2 * padding + 1)).long()
    span = torch.arange(side, device=device)
    rows, columns = shift[:, :1] + span, shift[:, 1:] + span  # [B, S]
    if flip:
        columns = torch.where(u[:, 2:] < 0.5, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    batch, channel = (
        torch.arange(len(images), device=device)[:, None, None, None],
        torch.arange(images.shape[1], device=device)[None, :, None, None],
    )
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def draw_resized_crops(
    index: Tensor, height: Tensor | int, width: Tensor | int, *, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Boxes [B, 4] (top, left, height, width; 8 to 100 % of the image), flips [B], as in the reference on ImageNet."""
    u = uniforms(derive(seed, Stream.PROBE, epoch, 1), index, NUM_CROP_UNIFORMS + 1)
    box = crop_boxes(u[:, :-1], height, width, (0.08, 1.0), (3 / 4, 4 / 3))
    return box, u[:, -1] < 0.5
