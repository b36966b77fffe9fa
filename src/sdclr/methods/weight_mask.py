"""The mask through which one branch reads a weight of another, as a parametrisation of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Mask(nn.Module):
    """The parametrisation that reads a weight through its mask; masked weights get no gradient from this branch."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def fit(self, weight: Tensor) -> None:
        """Keep all of a weight that was replaced by one of another shape, until the next refresh."""
        if self.mask.shape != weight.shape or self.mask.device != weight.device:
            self.mask = torch.ones_like(weight, dtype=torch.bool)


def mask_weight(module: nn.Module, name: str) -> Any:
    """Read this weight through a mask from now on; the list of parametrisations that holds it."""
    weight = getattr(module, name)
    # shape-preserving: skip the check
    parametrize.register_parametrization(module, name, _Mask(weight), unsafe=True)
    return module.parametrizations[name]  # type: ignore[index]


def is_of_masks(module: nn.Module) -> bool:
    """A weight's list of parametrisations that begins with our mask, or a module that holds such lists alone."""
    if isinstance(module, parametrize.ParametrizationList):
        return isinstance(module[0], _Mask)
    return (
        isinstance(module, nn.ModuleDict)
        and len(module) > 0
        and all(map(is_of_masks, module.values()))
    )
