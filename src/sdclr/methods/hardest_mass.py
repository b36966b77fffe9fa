"""COLT's measure of how rare an image is, from one batch: the mass of its hardest negatives.

B images in a batch, D projection dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import ConfigError, DataError

TILE = 512
"""Images whose masses are computed at a time: memory grows with the batch, not with its square."""


def hardest_mass(
    z_a: Tensor,
    z_b: Tensor,
    temperature: float = 0.2,
    k: int = 10,
    *,
    rows: range | None = None,
) -> Tensor:
    """COLT's mass of the k hardest negatives of each image of a batch, [B]; LOW = tail.

    a_ij = exp(s_ij) / sum over l != i of exp(s_il), the cosines s over the temperature; rows of the
    two views are averaged column by column over the same 2B - 2 negatives, then the k largest are
    summed (Bai et al., ICLR 2023). With fewer negatives than k, all are summed. Computed in fp32, or in
    fp64 for fp64 input. ``rows``: only the masses of these images, [len(rows)].

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
        wanted = range(b) if rows is None else rows
        tiles = [wanted[first : first + TILE] for first in range(0, max(len(wanted), 1), TILE)]
        return torch.cat([_masses(z, tile.start, tile.stop, temperature, k) for tile in tiles])


def _masses(z: Tensor, first: int, last: int, temperature: float, k: int) -> Tensor:
    """The masses of the images ``first`` .. ``last`` - 1; z [2B, D]: both views, rows of length one."""
    b, n = len(z) // 2, last - first
    anchors = torch.cat([z[first:last], z[b + first : b + last]])
    column = torch.arange(2 * b, device=z.device)
    own = column % b == torch.arange(first, last, device=z.device)[:, None]  # [n, 2B]
    itself = torch.cat([own & (column < b), own & (column >= b)])
    logits = (anchors @ z.T / temperature).masked_fill(itself, -torch.inf)  # [2n, 2B]
    mass = logits.softmax(dim=1)
    mean = (mass[:n] + mass[n:]) / 2  # [n, 2B]
    negatives = mean.masked_fill(own, -1.0)  # below every mass: never among the largest
    return negatives.topk(min(k, 2 * b - 2), dim=1).values.sum(dim=1)
