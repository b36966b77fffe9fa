"""Trade compute for memory: recompute a block's activations in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sdclr.errors import ConfigError


def checkpoint_activations(network: nn.Module) -> int:
    """Make every block of ``network`` recompute its activations in training; returns the number of blocks.

    A block is an element of an outermost nn.Sequential or nn.ModuleList that has submodules of its own: residual
    blocks, transformer layers, stages. Keys of the state_dict stay as they are. Gradients are exact, and batch-norm
    statistics are updated once per step: the recomputation leaves them alone. Raises ConfigError when there are no
    blocks.
    """
    blocks = list(_blocks(network))
    if not blocks:
        raise ConfigError(
            "activation_checkpointing found no blocks (nn.Sequential of modules) in the backbone."
        )
    for block in blocks:
        block.__class__ = type(f"Recomputed{type(block).__name__}", (_Recomputed, type(block)), {})
    return len(blocks)


class _Recomputed(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **kwargs)
        contexts = partial(_first_and_second_run, self)
        return checkpoint(
            super().forward, *args, use_reentrant=False, context_fn=contexts, **kwargs
        )


def _first_and_second_run(block: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Momentum 0 for the norms in ``block``: they compute as before, but their statistics do not change."""
    norms: list[Any] = [m for m in block.modules() if getattr(m, "track_running_stats", False)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            blocks = [block for block in child if next(block.children(), None) is not None]
            yield from blocks
        else:
            yield from _blocks(child)
