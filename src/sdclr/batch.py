"""What data and methods exchange: two views of the same images, and requests for the views.

B images, C channels, S view size in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Share(NamedTuple):
    """Which consecutive images of a batch belong to one of several processes."""

    first: int
    """Position of its first image in the whole batch."""
    total: int
    """Images of the whole batch, over all processes."""


class Views(NamedTuple):
    """Two independently augmented views of one batch, or of this process's share of it.

    >>> import torch
    >>> a, b = torch.rand(2, 8, 3, 32, 32)
    >>> views = Views(a, b, torch.arange(8))
    >>> views.a.shape, views.share
    (torch.Size([8, 3, 32, 32]), None)
    """

    a: Tensor
    """[B, C, S, S] in [0, 1]; the target branch's view."""
    b: Tensor
    """[B, C, S, S] in [0, 1]; the competitor branch's view."""
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index, which is not used on views
    """[B] int64, the images' positions in the training set."""
    share: Share | None = None
    """None: this is the whole batch."""


STRONGEST = 30.0
"""The strength at which an operation of RandAugment reaches the end of its range; 0 is the beginning."""


class RandomOperations(NamedTuple):
    """Operations of RandAugment that a method requests for the views, image by image.

    A view gets ``number`` operations, drawn with replacement, each applied with the image's
    probability. Their strength is ``lowest_strength + (30 - lowest_strength) * weight``; where
    there are several, ``weight * u`` with a uniform u that both views of an image share.
    """

    weight: Tensor
    """[N] in [0, 1], by the images' position."""
    number: int
    """Operations drawn for each view, at least 1."""
    lowest_strength: float
    """In [0, 30]."""
