"""Self-Damaging Contrastive Learning (Jiang, Chen, Mortazavi, Wang, ICML 2021)."""

from __future__ import annotations

import warnings
from typing import Any, Self

from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.errors import ConfigError
from sdclr.methods.config import SDCLRConfig, stale_problem
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.frozen_copy import FrozenCopy
from sdclr.methods.method import Parts
from sdclr.methods.nt_xent import checked_temperature, nt_xent
from sdclr.methods.self_competitor import SMALL_SHARE, SelfCompetitor

LOW_SHARE = 0.5
"""Share of prunable weights below which a run warns at its start."""


class SDCLR(ContrastiveMethod):
    """Contrast a network with its own pruned self.

    Images that the pruned self has forgotten, mostly rare ones, agree least and so weigh most. ``network`` maps images
    [B, C, S, S] to projections [B, D]; further keywords are those of :class:`SelfCompetitor`. One joint forward and
    backward pass gives the gradients that the reference accumulates in three forward and two backward passes.

    >>> import torch
    >>> from sdclr import Views
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> method = SDCLR(network, temperature=0.2, prune_ratio=0.9)
    >>> method.on_epoch_start(0)  # the masks of the epoch
    >>> a, b = torch.rand(2, 16, 3, 8, 8)
    >>> loss = method(Views(a, b, torch.arange(16)))  # [16], one an image
    >>> loss.mean().backward()
    """

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 0.2,
        *,
        stale: bool = False,
        **competitor: Any,
    ) -> None:
        """``stale``: the competitor is a pruned copy from the start of the epoch, without gradient; a control."""
        super().__init__()
        norms, dropout = competitor.get("norms", "own"), competitor.get("dropout", 0.0)
        if stale and (problem := stale_problem(norms, dropout)):
            raise ConfigError(problem)
        self.network = network
        self.competitor = SelfCompetitor(network, **competitor)
        self.stale_copy = FrozenCopy(network) if stale else None
        self.temperature = checked_temperature(temperature)

    @classmethod
    def from_config(cls, config: SDCLRConfig, parts: Parts) -> Self:
        names = {"prune_ratio", "norms", "prunable", "random_share", "dropout", "stale"}
        competitor = config.model_dump(include=names)
        network = parts.network(config.projector_layers, config.projection_dim)
        return cls(
            network, config.temperature, **competitor, spared=("projector",), seed=parts.seed
        )

    def on_epoch_start(self, epoch: int) -> None:
        self.competitor.refresh_masks(draw=epoch)  # the competitor is always the latest self
        if self.stale_copy is not None:
            self.stale_copy.become(self.network)
            self.stale_copy.mask(self.competitor.masks())

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        if self.stale_copy is not None:
            return self.network(views.a), self.stale_copy(views.b)
        z_target = self.network(views.a)  # [B, D] dense weights, target norms
        z_competitor = self.competitor(views.b)  # [B, D] the tied twin: masked weights, own norms
        return z_target, z_competitor

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return nt_xent(z_a, z_b, self.temperature, views.share)

    def measurements(self) -> dict[str, Tensor]:
        return {"mask_churn": self.competitor.mask_churn, "sparsity": self.competitor.sparsity()}

    def facts(self) -> dict[str, Any]:
        return {
            "prunable": self.competitor.prunable,
            "prunable_share": round(self.competitor.prunable_share, 6),
        }

    def describe(self, config: SDCLRConfig) -> list[str]:
        """What the competitor prunes, relative to the whole backbone."""
        share = self.competitor.prunable_share
        if SMALL_SHARE <= share < LOW_SHARE:  # for smaller shares, the competitor itself has warned
            warnings.warn(
                f"only {share:.1%} of the backbone's weights can be pruned, and the competitor differs little from "
                "the network itself. method.prunable=auto prunes linear layers, too, where they hold most weights.",
                stacklevel=6,
            )
        by_itself = " by auto" if config.prunable == "auto" else ""
        return [
            f"competitor: {share:.1%} of all backbone weights are prunable, {self.competitor.prune_ratio:.0%} of these "
            f"are masked (method.prunable={self.competitor.prunable}{by_itself})"
        ]
