"""The mask through which one branch reads a weight of another, as a torch parametrisation."""

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
        """Keep all of a weight that was replaced with one of another shape, until the next refresh."""
        if self.mask.shape != weight.shape or self.mask.device != weight.device:
            self.mask = torch.ones_like(weight, dtype=torch.bool)


class MaskedWeight:
    """A weight of ``network`` that is read through a mask from now on, by torch's parametrisation."""

    def __init__(self, network: nn.Module, module_name: str, weight_name: str) -> None:
        self.name = f"{module_name}.{weight_name}" if module_name else weight_name
        """Its name in the network."""
        module = network.get_submodule(module_name)
        mask = _Mask(getattr(module, weight_name))
        # shape-preserving: skip the check
        parametrize.register_parametrization(module, weight_name, mask, unsafe=True)
        self._parametrizations: Any = module.parametrizations[weight_name]  # type: ignore[index]

    @property
    def original(self) -> Tensor:
        """The unmasked weight."""
        weight: Tensor = self._parametrizations.original
        return weight

    @property
    def mask(self) -> Tensor:
        """bool, True is kept."""
        mask: Tensor = self._parametrizations[0].mask
        return mask

    def fit_mask(self) -> None:
        """Keep all of a weight that was replaced with one of another shape, until the next refresh."""
        self._parametrizations[0].fit(self.original)


def is_of_masks(module: nn.Module) -> bool:
    """Whether a module is a list of parametrisations that begins with our mask, or contains only such lists."""
    if isinstance(module, parametrize.ParametrizationList):
        return isinstance(module[0], _Mask)
    return (
        isinstance(module, nn.ModuleDict)
        and len(module) > 0
        and all(map(is_of_masks, module.values()))
    )
