"""NT-Xent for large batches, where memory grows with B, not with B², and for batches over several processes.

A tile of rows of the similarity matrix is computed, used and freed, and recomputed in the backward pass. B images of
the whole batch, b of them this process's (all of them with one process), D projection dim, T rows of a tile. Plain
tensors; the reduction to images is in :mod:`sdclr.methods.nt_xent`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdclr.batch import Share
from sdclr.processes.exchange import gather_rows

ROWS = 512
"""Rows of a tile: its products keep any device busy, and a tile of a batch of 64k images takes 268 MB."""


def tiled_anchor_losses(
    z: Tensor, temperature: float | Tensor, share: Share | None = None
) -> Tensor:
    """The loss of every own anchor [2b] from own normalised projections z [2b, D]; i and i + b are positives.

    Same value and gradients, including that of a temperature tensor, as with the whole matrix of all candidates.
    Differentiating it twice needs that whole matrix, and only works with one process. The
    processes exchange projections, normalisers and the loss's gradient, never the gradients of projections: each one
    computes the whole gradient of its own rows from all candidates.
    """
    return _TiledNTXent.apply(z, temperature, share)


class _TiledNTXent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float | Tensor, share: Share | None) -> Tensor:
        everyone = _of_everyone(z, share)  # [2B, D]
        own = _own_rows(z, share)  # [2b], rows of z in it
        partner = _partner(own, len(everyone))
        log_partition, positive = torch.empty_like(z[:, 0]), torch.empty_like(z[:, 0])
        for first in range(0, len(z), ROWS):
            rows = slice(first, first + ROWS)
            logits = _logits(z[rows], everyone, own[rows], temperature)  # [T, 2B]
            log_partition[rows] = logits.logsumexp(dim=1)
            # from the same products, so that the loss never rounds below zero
            positive[rows] = logits.gather(1, partner[rows, None]).squeeze(1)
        ctx.temperature = None if isinstance(temperature, Tensor) else temperature
        learned = (temperature,) if isinstance(temperature, Tensor) else ()
        ctx.save_for_backward(z, everyone, log_partition, *learned)
        ctx.share = share
        return log_partition - positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """With p the softmax of the logits: dz_i = [Σ_k (g_i p_ik + g_k p_ki) z_k - (g_i + g_j) z_j] / temperature.

        j is the positive of i; the logits are symmetric, so a tile of rows also gives its part of the columns. The
        temperature's gradient is -Σ_i g_i (Σ_k p_ik logit_ik - logit_ij) / temperature, over own anchors.
        """
        z, everyone, log_partition, *learned = ctx.saved_tensors
        temperature = learned[0] if learned else ctx.temperature
        if torch.is_grad_enabled():
            return *_differentiable_gradients(z, temperature, gradient, ctx.share), None
        own = _own_rows(z, ctx.share)
        partner = _partner(own, len(everyone))
        # [2B] each
        column_partition, column_gradient = (
            _of_everyone(x, ctx.share) for x in (log_partition, gradient)
        )
        dz = torch.empty_like(z)
        wants_temperature = ctx.needs_input_grad[1]
        excess = torch.zeros_like(gradient[0])  # Σ_i g_i (Σ_k p_ik logit_ik - logit_ij)
        with torch.autocast(z.device.type, enabled=False):
            for first in range(0, len(z), ROWS):
                rows = slice(first, first + ROWS)
                logits = _logits(z[rows], everyone, own[rows], temperature)  # [T, 2B]
                weights = (logits - log_partition[rows, None]).exp_().mul_(gradient[rows, None])
                if wants_temperature:
                    # an anchor's own logit has weight 0
                    finite = logits.masked_fill(logits.isneginf(), 0)
                    positive = finite.gather(1, partner[rows, None]).squeeze(1)
                    excess += (weights * finite).sum() - (gradient[rows] * positive).sum()
                weights += logits.sub_(column_partition).exp_().mul_(column_gradient)
                dz[rows] = weights @ everyone
            dz -= (gradient + column_gradient[partner])[:, None] * everyone[partner]
        dt = (-excess / temperature).to(learned[0].dtype) if wants_temperature else None
        return dz / temperature, dt, None


def _differentiable_gradients(
    z: Tensor, temperature: float | Tensor, gradient: Tensor, share: Share | None
) -> tuple[Tensor, Tensor | None]:
    """The same gradients with the whole matrix, which can be differentiated again (create_graph=True)."""
    if share is not None:
        raise RuntimeError(
            "the loss of a batch on several processes can be differentiated only once."
        )
    own = _own_rows(z, None)
    logits = _whole_logits(z, temperature)
    positive = logits.gather(1, _partner(own, len(z))[:, None]).squeeze(1)
    losses = logits.masked_fill(own[:, None] == own, -torch.inf).logsumexp(dim=1) - positive
    wanted = [x for x in (z, temperature) if isinstance(x, Tensor) and x.requires_grad]
    found = iter(torch.autograd.grad(losses, wanted, gradient, create_graph=True))
    dz = next(found) if z.requires_grad else torch.zeros_like(z)
    return dz, next(found, None)


def _whole_logits(z: Tensor, temperature: float | Tensor) -> Tensor:
    with torch.autocast(z.device.type, enabled=False):
        return z @ z.T / temperature  # [2B, 2B]


def _of_everyone(own: Tensor, share: Share | None) -> Tensor:
    """Own values [2b, ...] of both views -> those of the whole batch [2B, ...]."""
    if share is None:
        return own
    by_image = own.unflatten(0, (2, -1)).transpose(0, 1)  # [b, 2, ...]
    return gather_rows(by_image, share).transpose(0, 1).flatten(0, 1)


def _own_rows(z: Tensor, share: Share | None) -> Tensor:
    """int64 [2b]: positions of own rows among those of all processes."""
    rows = torch.arange(len(z), device=z.device)
    if share is None:
        return rows
    num = len(z) // 2
    return rows + share.first + (rows >= num) * (share.total - num)


def _partner(rows: Tensor, num_rows: int) -> Tensor:
    """The other view of the same image."""
    return (rows + num_rows // 2) % num_rows


def _logits(anchors: Tensor, everyone: Tensor, own: Tensor, temperature: float | Tensor) -> Tensor:
    """Similarities over the temperature [T, 2B]; -inf between an anchor and itself."""
    logits = (anchors @ everyone.T).div_(temperature)
    return logits.scatter_(1, own[:, None], -torch.inf)
