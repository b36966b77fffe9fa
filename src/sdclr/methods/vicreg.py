"""VICReg (Bardes, Ponce, LeCun, ICLR 2022): no negatives; a variance to keep, covariances to lose.

B images of the whole batch, D projection dim.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from sdclr.batch import Share, Views
from sdclr.errors import ConfigError
from sdclr.methods.config import Passes, VICRegConfig
from sdclr.methods.contrastive import ContrastiveMethod, checked_passes, in_passes
from sdclr.methods.method import Parts
from sdclr.processes.exchange import sum_over_processes

_EPSILON = 1e-4
"""Added to a variance before its root."""


def vicreg(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    share: Share | None = None,
) -> Tensor:
    """VICReg's loss as one number for each image, [B]; their mean is the batch's loss.

    Variance and covariance are those of the whole batch. Both are sums over images of squares and
    products of centred projections, and each image gets its own terms. With x_i the centred
    projection, C the covariance matrix, s the roots of its variances:
    covariance_i = B / (B - 1) / D * sum over d != e of C_de x_id x_ie, and
    variance_i = mean over d with s_d < 1 of 1 - (eps + B / (B - 1) x_id^2) / s_d.

    The mean over images is the published loss for every value of the projections, so its gradient
    is the published one, too; the number of a single image may be negative.

    >>> z = torch.tensor([[0.0, 0.0], [1.0, 2.0], [4.0, 1.0]])
    >>> losses = vicreg(z, z)
    >>> losses.shape, round(losses.mean().item(), 3)
    (torch.Size([3]), 0.5)
    """
    if z_a.ndim != 2 or z_a.shape != z_b.shape:
        raise ConfigError(
            f"vicreg takes projections [B, D] of two views, got {list(z_a.shape)} and {list(z_b.shape)}."
        )
    num = len(z_a) if share is None else share.total
    if num < 2:
        raise ConfigError(f"vicreg needs a batch of at least 2 images, got {num}.")
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = (z if z.dtype == torch.float64 else z.float() for z in (z_a, z_b))
        losses = invariance * (z_a - z_b).square().mean(dim=1)
        for z in (z_a, z_b):
            spread, products = _spread_and_products(z, num, several=share is not None)
            losses = losses + variance / 2 * spread + covariance * products
        return losses


def _spread_and_products(z: Tensor, num: int, *, several: bool) -> tuple[Tensor, Tensor]:
    """Each image's part of the variance term and of the covariance term of one view, [B] each."""

    def over_all(values: Tensor) -> Tensor:
        return sum_over_processes(values) if several else values

    x = z - over_all(z.sum(dim=0)) / num  # [B, D]
    matrix = over_all(x.T @ x) / (num - 1)  # [D, D]
    scale = num / (num - 1)
    root = (matrix.diagonal() + _EPSILON).sqrt()  # [D]
    gap = 1 - (_EPSILON + scale * x.square()) / root
    spread = torch.where(root < 1, gap, 0).mean(dim=1)
    products = (x @ (matrix - matrix.diagonal().diag()) * x).sum(dim=1)
    return spread, scale * products / z.shape[1]


class VICReg(ContrastiveMethod):
    """VICReg around ``network``, which maps images [B, C, S, S] to projections [B, D]."""

    def __init__(
        self,
        network: nn.Module,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        passes: Passes = "separate",
    ) -> None:
        super().__init__()
        self.network, self.passes = network, checked_passes(passes)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    @classmethod
    def from_config(cls, config: VICRegConfig, parts: Parts) -> Self:
        # a final norm would fix the variance that the loss controls
        network = parts.network(config.projector_layers, config.projection_dim, last_norm=False)
        names = {"invariance", "variance", "covariance", "passes"}
        return cls(network, **config.model_dump(include=names))

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return in_passes(self.network, views, self.passes)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return vicreg(
            z_a,
            z_b,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            share=views.share,
        )
