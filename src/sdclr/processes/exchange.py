"""What processes exchange while they train: gradients, and rows of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdclr.batch import Share


def averaging_gradients(method: nn.Module) -> nn.Module:
    """``method`` in torch's DistributedDataParallel: a backward pass leaves the mean of the processes' gradients.

    Buffers are not broadcast at every step: norms are synchronised, and masks are computed identically everywhere.
    """
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    # before torch 2.14
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(method, **options)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their sum over all processes, the same bits on each, in one exchange after the backward.

    For losses that are each process's part of the batch's mean. A parameter without a gradient has none on any process.
    """
    gradients = [one.grad for one in parameters if one.grad is not None]
    whole = torch.cat([one.reshape(-1) for one in gradients])
    dist.all_reduce(whole)
    sizes = [one.numel() for one in gradients]
    for gradient, total in zip(gradients, whole.split(sizes), strict=True):
        gradient.copy_(total.view(gradient.shape))


def gather_rows(rows: Tensor, share: Share) -> Tensor:
    """Every process's rows [b, ...] as one batch [B, ...], the same on all of them. No gradient flows through."""
    whole = rows.new_zeros(share.total, *rows.shape[1:])
    whole[share.first : share.first + len(rows)] = rows
    # zeros everywhere else: the sum is the batch, also with shares of different sizes
    dist.all_reduce(whole)
    return whole


def of_first_process(values: Tensor) -> Tensor:
    """The first process's tensor, on all processes; on one process, the tensor itself."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast(values, src=0)
    return values


def gather_rows_with_gradient(rows: Tensor, share: Share | None) -> Tensor:
    """As :func:`gather_rows`, with a gradient: that of the sum of all processes' losses.

    Without a share the rows are the whole batch.
    """
    if share is None:
        return rows
    before = rows.new_zeros(share.first, *rows.shape[1:])
    after = rows.new_zeros(share.total - share.first - len(rows), *rows.shape[1:])
    return sum_over_processes(torch.cat([before, rows, after]))


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's tensor; so is its gradient, since each process's loss depends on it."""
    return _SumOverProcesses.apply(values)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
