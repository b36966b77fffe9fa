"""COLT's measure of how rare an image is, from one batch: the mass of its hardest negatives.

B images in a batch, D projection dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import ConfigError, DataError


def hardest_mass(z_a: Tensor, z_b: Tensor, temperature: float = 0.2, k: int = 10) -> Tensor:
    """COLT's mass of the k hardest negatives of each image of a batch, [B]; LOW = tail.

    a_ij = exp(s_ij) / sum over l != i of exp(s_il), the cosines s over the temperature; rows of the
    two views are averaged column by column over the same 2B - 2 negatives, then the k largest are
    summed (Bai et al., ICLR 2023). With fewer negatives than k, all are summed. Computed in fp32, or in
    fp64 for fp64 input.

    >>> z = torch.eye(3, dtype=torch.float64)
    >>> hardest_mass(z, z, temperature=1.0, k=4).round(decimals=4).tolist()
    [0.5954, 0.5954, 0.5954]
    """
    if z_a.shape != z_b.shape or z_a.ndim != 2 or len(z_a) < 2:
        shapes = f"{tuple(z_a.shape)} and {tuple(z_b.shape)}"
        raise DataError(f"two views of at least 2 images are needed, [B, D] each, got {shapes}.")
    if k < 1 or temperature <= 0:
        raise ConfigError(f"k and temperature must be positive, got {k} and {temperature}.")
    b = len(z_a)
    # in bf16 a batch would have only a few distinct values
    with torch.autocast(z_a.device.type, enabled=False):
        z = torch.cat([z_a, z_b])
        z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
        logits = z @ z.T / temperature
    logits.fill_diagonal_(-torch.inf)
    mass = logits.softmax(dim=1)  # [2B, 2B]
    mean = (mass[:b] + mass[b:]) / 2  # [B, 2B]
    own = torch.eye(b, dtype=torch.bool, device=mean.device).repeat(1, 2)
    negatives = mean.masked_fill(own, -1.0)  # below every mass: never among the largest
    return negatives.topk(min(k, 2 * b - 2), dim=1).values.sum(dim=1)
