"""Focal NT-Xent: SimCLR's loss with the weight (1 - p)^gamma, p the softmax probability of the positive.

Used by Geometric Harmonization's repository (NeurIPS 2023) as a baseline; the weight is Lin et al.'s (ICCV 2017).
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor, nn

from sdclr.batch import Share, Views
from sdclr.errors import ConfigError
from sdclr.methods.config import LARGEST_GAMMA, Passes
from sdclr.methods.contrastive import ContrastiveMethod, checked_passes, in_passes
from sdclr.methods.nt_xent import anchor_losses, checked_temperature


def focal_nt_xent(
    z_a: Tensor, z_b: Tensor, temperature: float | Tensor, gamma: float, share: Share | None = None
) -> Tensor:
    """-(1 - p)^gamma log p for every anchor, averaged over an image's two anchors [B].

    Arguments and errors are those of :func:`~sdclr.methods.nt_xent.nt_xent`; ``gamma`` 0 gives its loss. The gradient
    flows through the weight, as in the reference.
    """
    checked_gamma(gamma)
    losses = anchor_losses(z_a, z_b, temperature, share)  # [2, B], -log p
    # expm1: 1 - p is exact where p is close to 1
    return ((-torch.expm1(-losses)) ** gamma * losses).mean(dim=0)


def checked_gamma(gamma: float) -> float:
    """Return ``gamma`` if it is 0 or at least 1; raises ConfigError for anything else."""
    if not isinstance(gamma, Real) or not (gamma == 0 or 1 <= gamma <= LARGEST_GAMMA):
        raise ConfigError(
            f"gamma must be 0 or at least 1, and at most {LARGEST_GAMMA:g}; got {gamma!r}. Between 0 and 1 a gradient "
            "is infinite."
        )
    return gamma


class FocalNTXent(ContrastiveMethod):
    """SimCLR with a focal weight. ``network`` maps images [B, C, S, S] to projections [B, D]."""

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 0.2,
        gamma: float = 2.0,
        passes: Passes = "joint",
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = checked_temperature(temperature)
        self.gamma, self.passes = checked_gamma(gamma), checked_passes(passes)

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return in_passes(self.network, views, self.passes)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return focal_nt_xent(z_a, z_b, self.temperature, self.gamma, views.share)
