"""Modules that only call another one: torch.compile's and those that spread a batch over devices.

Their state_dict gives every tensor a prefix that the plain network does not have, and a copy of them still calls the
original. So they are removed, or refused where they are inside a network.
"""

from __future__ import annotations

from torch import nn

_DISTRIBUTING = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def wraps_another(module: nn.Module) -> bool:
    """Whether a module only calls another one: torch.compile, DataParallel, DistributedDataParallel."""
    return isinstance(module, _DISTRIBUTING) or "_orig_mod" in module._modules


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, without any wrappers around it; modules wrapped inside it stay as they are."""
    while wraps_another(network):
        network = network._modules["_orig_mod" if "_orig_mod" in network._modules else "module"]  # type: ignore[assignment]
    return network
