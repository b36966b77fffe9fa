"""SimCLR (Chen et al., ICML 2020): the baseline, one network for both views."""

from __future__ import annotations

from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.methods.config import Passes
from sdclr.methods.contrastive import ContrastiveMethod, checked_passes, in_passes
from sdclr.methods.nt_xent import checked_temperature, nt_xent


class SimCLR(ContrastiveMethod):
    """Contrast two views of every image. ``network`` maps images [B, C, S, S] to projections [B, D].

    >>> import torch
    >>> from sdclr import Views
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    >>> a, b = torch.rand(2, 6, 3, 2, 2)
    >>> SimCLR(network)(Views(a, b, torch.arange(6))).shape
    torch.Size([6])
    """

    def __init__(
        self, network: nn.Module, temperature: float = 0.2, passes: Passes = "joint"
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = checked_temperature(temperature)
        self.passes = checked_passes(passes)

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return in_passes(self.network, views, self.passes)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return nt_xent(z_a, z_b, self.temperature, views.share)
