"""A copy of a network without gradient: its weights are buffers, so that a checkpoint contains them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class FrozenCopy(nn.Module):
    """A snapshot of the network, which only changes when it is updated explicitly.

    Its weights are buffers: no optimiser sees them. Batch norms update their own statistics in
    training mode, as in any forward pass.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> frozen = FrozenCopy(network)
    >>> with torch.no_grad():
    ...     _ = network.weight.add_(1)
    >>> before = frozen.copy.weight.item()
    >>> frozen.move_towards(network, keep=0.75)
    >>> round(frozen.copy.weight.item() - before, 4), list(frozen.parameters())
    (0.25, [])
    """

    copy: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.copy = copy.deepcopy(network)
        for module in self.copy.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    del module._parameters[name]
                    module.register_buffer(name, parameter.detach().clone())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.copy(*args, **kwargs)

    @torch.no_grad()
    def become(self, network: nn.Module) -> None:
        """Copy the network's weights and statistics."""
        own = self._tensors()
        for name, weight in network.named_parameters(remove_duplicate=False):
            own[name].copy_(weight)
        for name, statistic in network.named_buffers(remove_duplicate=False):
            own[name].copy_(statistic)

    @torch.no_grad()
    def move_towards(self, network: nn.Module, keep: float) -> None:
        """weights <- keep * weights + (1 - keep) * the network's; statistics are left unchanged."""
        own = self._tensors()
        for name, weight in network.named_parameters(remove_duplicate=False):
            own[name].lerp_(weight, 1 - keep)

    @torch.no_grad()
    def mask(self, masks: dict[str, Tensor]) -> None:
        """Set weights to zero where their mask is False."""
        own = self._tensors()
        for name, mask in masks.items():
            own[name].mul_(mask)

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.copy.named_buffers(remove_duplicate=False))
