"""LoTaR: NT-Xent weighted by the distance between an image's two projections (andrew15818/SimCLR).

B images of this process's shard of a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sdclr.batch import Share, Views
from sdclr.methods.config import Passes
from sdclr.methods.contrastive import ContrastiveMethod, checked_passes, in_passes
from sdclr.methods.nt_xent import checked_temperature, nt_xent
from sdclr.processes.exchange import gather_rows_with_gradient

_ROUNDING = {torch.float16: 1, torch.bfloat16: 1, torch.float32: 100, torch.float64: 100}
"""Distances are equal up to rounding if their span is at most so many units in the last place of the lengths of the
projections, by their type. In half precision a layer sums in float32 and rounds once, at its end.
"""


def distance_weights(
    z_a: Tensor, z_b: Tensor, sign: Literal[1, -1] = 1, share: Share | None = None
) -> Tensor:
    """w_i = 1 + sign * (d_i - mean d) / (max d - min d) over the whole batch, [B].

    d_i is the Euclidean distance between the two projections of image i, which are not normalised.
    The gradient flows through d, its mean, its maximum and its minimum. The weights have mean 1 and span 1; if all
    distances are equal up to rounding, which the formula leaves undefined, every weight is 1, without a gradient: a
    norm at the end of the head makes both distances of two images equal.

    >>> a = torch.tensor([[0.0], [0.0], [0.0]])
    >>> b = torch.tensor([[1.0], [2.0], [6.0]])
    >>> [round(weight, 2) for weight in distance_weights(a, b).tolist()]
    [0.6, 0.8, 1.6]
    >>> distance_weights(a, a).tolist()
    [1.0, 1.0, 1.0]
    """
    with torch.autocast(z_a.device.type, enabled=False):
        difference = z_a - z_b if z_a.dtype == torch.float64 else z_a.float() - z_b.float()
        own = torch.linalg.vector_norm(difference, dim=1)  # [B]
        lengths = [torch.linalg.vector_norm(z.detach().to(own.dtype), dim=1) for z in (z_a, z_b)]
        rows = torch.stack([own, *lengths], dim=1)
        every, lengths_a, lengths_b = gather_rows_with_gradient(rows, share).unbind(1)
        span = every.max() - every.min()
        rounding = _ROUNDING[z_a.dtype] * torch.finfo(z_a.dtype).eps
        differ = span > rounding * (lengths_a + lengths_b).max()
        deviation = (own - every.mean()) / torch.where(differ, span, 1)
        return 1 + sign * torch.where(differ, deviation, 0)


class LoTaR(ContrastiveMethod):
    """SimCLR with distance weights. ``network`` maps images [B, C, S, S] to projections [B, D]."""

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 0.2,
        sign: Literal[1, -1] = 1,
        passes: Passes = "separate",
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = checked_temperature(temperature)
        self.sign, self.passes = sign, checked_passes(passes)

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return in_passes(self.network, views, self.passes)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        weights = distance_weights(z_a, z_b, self.sign, views.share)
        return weights * nt_xent(z_a, z_b, self.temperature, views.share)
