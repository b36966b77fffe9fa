"""NT-Xent for large batches: memory grows with B, not with B².

A tile of rows of the similarity matrix is made, used and dropped, and made again in the backward pass. B images,
D projection dim, T rows of a tile. Plain tensors; the reduction to images is :mod:`sdclr.methods.nt_xent`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 512
"""Rows of a tile: its products keep any device busy, and a tile of a batch of 64k images takes 268 MB."""


def tiled_anchor_losses(z: Tensor, temperature: float) -> Tensor:
    """The loss of every anchor [2B] from normalised projections z [2B, D]; rows i and i + B are each other's positive.

    Same value and gradient as with the whole matrix; cannot be differentiated twice.
    """
    return _TiledNTXent.apply(z, temperature)


class _TiledNTXent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float) -> Tensor:
        num = len(z)
        partner = torch.arange(num, device=z.device).roll(num // 2)
        log_partition, positive = torch.empty_like(z[:, 0]), torch.empty_like(z[:, 0])
        for first in range(0, num, ROWS):
            rows = slice(first, first + ROWS)
            logits = _logits(z, rows, temperature)  # [T, 2B]
            log_partition[rows] = logits.logsumexp(dim=1)
            # from the same products: the loss can never round below zero
            positive[rows] = logits.gather(1, partner[rows, None]).squeeze(1)
        ctx.save_for_backward(z, log_partition)
        ctx.temperature = temperature
        return log_partition - positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """With p the softmax of the logits: dz_i = [Σ_k (g_i p_ik + g_k p_ki) z_k - (g_i + g_j) z_j] / temperature.

        j is the positive of i; the logits are symmetric, so a tile of rows also knows its part of the columns.
        """
        z, log_partition = ctx.saved_tensors
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        dz = torch.empty_like(z)
        with torch.autocast(z.device.type, enabled=False):
            for first in range(0, len(z), ROWS):
                rows = slice(first, first + ROWS)
                logits = _logits(z, rows, ctx.temperature)  # [T, 2B]
                weights = (logits - log_partition[rows, None]).exp_().mul_(gradient[rows, None])
                weights += logits.sub_(log_partition).exp_().mul_(gradient)
                dz[rows] = weights @ z
            dz -= (gradient + gradient[partner])[:, None] * z[partner]
        return dz / ctx.temperature, None


def _logits(z: Tensor, rows: slice, temperature: float) -> Tensor:
    """Rows of the similarities over the temperature [T, 2B]; -inf where an anchor meets itself."""
    logits = (z[rows] @ z.T).div_(temperature)
    logits.diagonal(rows.start).fill_(-torch.inf)
    return logits
