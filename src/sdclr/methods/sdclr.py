"""Self-Damaging Contrastive Learning (Jiang, Chen, Mortazavi, Wang, ICML 2021)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.methods.method import Method
from sdclr.methods.nt_xent import checked_temperature, nt_xent
from sdclr.methods.self_competitor import SelfCompetitor


class SDCLR(Method):
    """Contrast a network with its own pruned self.

    Images the pruned self has forgotten, mostly rare ones, agree least and so weigh most. ``network`` maps images
    [B, 3, S, S] to projections [B, D]; further keywords are :class:`SelfCompetitor`'s. One joint forward and backward
    gives the gradients that the reference collects in three forwards and two backwards.
    """

    def __init__(self, network: nn.Module, temperature: float = 0.2, **competitor: Any) -> None:
        super().__init__()
        self.network = network
        self.competitor = SelfCompetitor(network, **competitor)
        self.temperature = checked_temperature(temperature)

    def on_epoch_start(self, epoch: int) -> None:
        self.competitor.refresh_masks(draw=epoch)  # the rival is always the latest self

    def forward(self, views: Views) -> Tensor:
        z_target = self.network(views.a)  # [B, D] dense weights, target norms
        z_competitor = self.competitor(views.b)  # [B, D] the tied twin: masked weights, own norms
        return nt_xent(z_target, z_competitor, self.temperature, views.share)

    def measurements(self) -> dict[str, Tensor]:
        return {"mask_churn": self.competitor.mask_churn, "sparsity": self.competitor.sparsity()}
