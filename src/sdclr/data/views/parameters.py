"""What every view looks like: parameters drawn for a whole batch at once, a pure function of their counters.

B images. The parameters of a view depend only on (seed, epoch, image index, view number): not on the batch, the device,
the number of workers or of processes. An image that occurs again in an epoch has another index there. Distributions are
torchvision's RandomResizedCrop, ColorJitter and friends. Draws only numbers; :mod:`sdclr.data.views.augment` applies
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sdclr.batch import RandomOperations
from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.data.views.random_operations import draw_operations

if TYPE_CHECKING:
    from sdclr.data.views.own import OwnBatch, OwnView

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
ORDERS = tuple(permutations(range(4)))
"""The 24 orders of the four colour operations."""

_CANDIDATES = 10  # torchvision tries ten crops before it falls back
NUM_CROP_UNIFORMS = 2 * _CANDIDATES + 2
"""Random numbers that :func:`crop_boxes` takes per crop."""
_NUM_UNIFORMS = NUM_CROP_UNIFORMS + 10


@dataclass(frozen=True)
class ViewSpec:
    """A distribution of views. Sizes in pixels of the view, probabilities and areas as fractions."""

    size: int
    area: tuple[float, float] = (0.1, 1.0)
    """Share of the image's area that a crop covers."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a crop, drawn uniformly in the logarithm."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Strengths of brightness, contrast, saturation, hue: factors in [1 - s, 1 + s], hue shifts in [-s, s] turns."""
    jitter_probability: float = 0.8
    grey: float = 0.2
    """Probability of a grey view."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels of the view."""
    strength: Tensor | None = field(default=None, compare=False)
    """[N], at least 0, by the images' position: multiplies the strengths of the jitter; None: 1 for all."""
    operations: RandomOperations | None = field(default=None, compare=False)
    """Applied to the finished view; None: none are."""
    single: bool = False
    """Whether each image gets only view 0, as for a classifier, which compares no views."""
    own: OwnView | None = field(default=None, compare=False)
    """Makes a view of a whole image, in place of the crop."""
    own_batch: OwnBatch | None = field(default=None, compare=False)
    """Changes the finished views of a batch."""
    compile_views: bool = field(default=False, compare=False)
    """Whether the making of these views is compiled on a CUDA device: worthwhile for many batches of one size."""

    @property
    def view_numbers(self) -> tuple[int, ...]:
        """The numbers of the views of an image."""
        return (0,) if self.single else (0, 1)


class ViewParameters(NamedTuple):
    """Everything random about B views; all tensors on one device."""

    box: Tensor
    """[B, 4] int64: top, left, height, width of the crop in source pixels."""
    flip: Tensor
    """[B] bool."""
    factors: Tensor
    """[B, 4] float32: brightness, contrast, saturation factors and the hue shift in turns; 1, 1, 1, 0 = unchanged."""
    order: Tensor
    """[B] int64: position in ORDERS; -1 where the colours are not jittered."""
    grey: Tensor
    """[B] bool."""
    sigma: Tensor
    """[B] float32: blur in pixels; 0 where not blurred."""
    operations: Tensor
    """[B, k, 4] float64: operation (-1: none), parameter and place of k operations; k is 0 where none are requested."""


def draw_view_parameters(
    spec: ViewSpec,
    index: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    *,
    seed: int,
    epoch: int,
    view: int,
) -> ViewParameters:
    """Parameters for the images ``index`` [B] (int64) of ``height`` x ``width`` pixels ([B] or one for all).

    ``index``: positions, or the draws of :func:`~sdclr.data.epoch_order.epoch_draws`.
    """
    u = uniforms(derive(seed, Stream.VIEWS, epoch, view), index, _NUM_UNIFORMS)  # [B, 32]
    crop, rest = u[:, :NUM_CROP_UNIFORMS], u[:, NUM_CROP_UNIFORMS:]
    # the host does not wait for the device
    strengths = torch.tensor(spec.jitter).to(u.device, non_blocking=True)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).to(u.device, non_blocking=True)
    jittered = rest[:, 1] < spec.jitter_probability
    if spec.strength is not None:
        # [B, 4]
        strengths = (
            strengths * spec.strength.to(index.device)[index % len(spec.strength), None].float()
        )
    lowest = torch.where(neutral == 1, (neutral - strengths).clamp(min=0), -strengths)
    factors = lowest + rest[:, 2:6] * (neutral + strengths - lowest)
    sigma_low, sigma_high = spec.blur_sigma
    return ViewParameters(
        box=crop_boxes(crop, height, width, spec.area, spec.aspect),
        flip=rest[:, 0] < spec.flip,
        factors=torch.where(jittered[:, None], factors, neutral),
        order=torch.where(jittered, (rest[:, 6] * len(ORDERS)).long(), -1),
        grey=rest[:, 7] < spec.grey,
        sigma=torch.where(
            rest[:, 8] < spec.blur, sigma_low + rest[:, 9] * (sigma_high - sigma_low), 0.0
        ),
        operations=draw_operations(spec.operations, index, seed=seed, epoch=epoch, view=view),
    )


def draw_two_views(
    spec: ViewSpec,
    index: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    *,
    seed: int,
    epoch: int,
) -> ViewParameters:
    """Parameters [2B] of view 0 of every image, then of view 1; [B] with ``spec.single``."""
    drawn = [
        draw_view_parameters(spec, index, height, width, seed=seed, epoch=epoch, view=view)
        for view in spec.view_numbers
    ]
    return ViewParameters(*(torch.cat(pair) for pair in zip(*drawn, strict=True)))


def crop_boxes(
    u: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Tensor:
    """Random-resized-crop boxes [B, 4] (top, left, height, width) from uniforms [B, 2 * candidates + 2].

    Draws every candidate at once and takes the first that fits, else torchvision's central fallback: exactly the
    distribution of RandomResizedCrop.get_params.
    """
    u = u.double()
    size = torch.empty(len(u), 2, dtype=torch.float64, device=u.device)
    size[:, 0], size[:, 1] = height, width
    full_height, full_width = size[:, :1], size[:, 1:]  # [B, 1]
    candidates = (u.shape[1] - 2) // 2
    # [B, candidates] each
    target_area = full_height * full_width * (area[0] + u[:, :candidates] * (area[1] - area[0]))
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(log_low + u[:, candidates : 2 * candidates] * (log_high - log_low))
    w, h = torch.sqrt(target_area * ratio).round(), torch.sqrt(target_area / ratio).round()
    fits = (w >= 1) & (w <= full_width) & (h >= 1) & (h <= full_height)
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)  # the first True; 0 where there is none
    fallback_h, fallback_w = _largest_central(full_height, full_width, aspect)
    any_fits = fits.any(dim=1, keepdim=True)
    h = torch.where(any_fits, h.gather(1, first), fallback_h)
    w = torch.where(any_fits, w.gather(1, first), fallback_w)
    top = torch.where(
        any_fits, (u[:, -2:-1] * (full_height - h + 1)).floor(), ((full_height - h) / 2).floor()
    )
    left = torch.where(
        any_fits, (u[:, -1:] * (full_width - w + 1)).floor(), ((full_width - w) / 2).floor()
    )
    return torch.cat([top, left, h, w], dim=1).long()


def _largest_central(
    height: Tensor, width: Tensor, aspect: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """torchvision's fallback: the largest box of an allowed aspect."""
    ratio = width / height
    h = torch.where(ratio < aspect[0], (width / aspect[0]).round(), height)
    w = torch.where(ratio > aspect[1], (height * aspect[1]).round(), width)
    return h.clamp(min=1), w.clamp(min=1)
