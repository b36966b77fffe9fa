"""Which weights of a network can be pruned, and their share of it."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from sdclr.errors import ConfigError
from sdclr.methods.module_attributes import HELD_BY_TORCH, holds_one
from sdclr.methods.tied_twin import tensors
from sdclr.safe_text import shown

Layers = Literal["conv", "conv+linear"]
"""Kinds of layers to prune."""


Prunable = Literal["auto"] | Layers | Callable[[str, nn.Module], bool]


MOSTLY_CONVOLUTIONS = 0.5
"""Share of a network's weights that must be in convolutions for ``auto`` to prune only these."""


_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


_NAMES = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Names of the parameters that are pruned; attention packs three of them, unless keys and queries differ in size."""


def resolve_prunable(network: nn.Module, spared: Iterable[str] = ()) -> Layers:
    """Resolve ``auto``: convolutions if they have at least half of the network's weights, else linear layers too."""
    spared = tuple(spared)
    held = sum(
        module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, _CONVOLUTIONS) and not _is_spared(name, spared)
    )
    return "conv" if held >= MOSTLY_CONVOLUTIONS * _num_weights(network, spared) else "conv+linear"


def _num_weights(network: nn.Module, spared: tuple[str, ...]) -> int:
    parameters = dict(network.named_parameters())
    counted = [p.numel() for name, p in parameters.items() if not _is_spared(name, spared)]
    return max(sum(counted), 1)


def prunable_share(
    network: nn.Module, targets: list[tuple[str, str]], spared: tuple[str, ...]
) -> float:
    """The share of ``targets`` in all weights that are not spared."""
    prunable = sum(getattr(network.get_submodule(name), key).numel() for name, key in targets)
    return prunable / _num_weights(network, spared)


@torch.no_grad()
def rescaled_layers(network: nn.Module, targets: list[tuple[str, str]]) -> list[str]:
    """Convolutions with a custom forward whose output does not scale with their weight."""
    found = []
    for name, _ in targets:
        layer = network.get_submodule(name)
        plain = next((kind for kind in _CONVOLUTIONS if isinstance(layer, kind)), None)
        if plain is not None and type(layer).forward is not plain.forward:
            with contextlib.suppress(Exception):  # unknown for a forward with other arguments
                if not _grows_with_its_weight(layer):
                    found.append(name)
    return found


def _grows_with_its_weight(layer: Any) -> bool:
    sides = [d * (k - 1) + 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    images = (
        torch.linspace(-1, 1, layer.in_channels * math.prod(sides))
        .view(1, -1, *sides)
        .to(layer.weight)
    )
    nothing, once, twice = (
        torch.func.functional_call(layer, {"weight": factor * layer.weight}, images)
        for factor in (0, 1, 2)
    )
    grown = once - nothing
    tolerance = 1e-3 * float(once.abs().max())
    return bool(grown.abs().max() > tolerance) and torch.allclose(
        twice - nothing, 2 * grown, rtol=1e-2, atol=tolerance
    )


def checked_spared(network: nn.Module, spared: Iterable[str] | str) -> tuple[str, ...]:
    """The names as a tuple. Raises ConfigError for one that no submodule has."""
    names = (spared,) if isinstance(spared, str) else tuple(spared)
    first_name = {id(module): name for name, module in network.named_modules()}
    # a module in several places is identified by its first name
    known = {
        name: first_name[id(module)]
        for name, module in network.named_modules(remove_duplicate=False)
    }
    if unknown := [name for name in names if name not in known]:
        meant = difflib.get_close_matches(str(unknown[0]), known, 1)
        raise ConfigError(
            f"spared names {shown(repr(unknown[0]))}, and the network has no such submodule"
            + (f"; did you mean {meant[0]!r}?" if meant else ".")
        )
    return tuple(known[name] for name in names)


def _is_spared(name: str, spared: tuple[str, ...]) -> bool:
    return any(name == s or name.startswith(f"{s}.") for s in spared)


def prunable_weights(
    network: nn.Module, prunable: Prunable, spared: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """(module name, parameter name) of every weight to prune, in the network's order."""
    if not callable(prunable) and prunable not in ("conv", "conv+linear"):
        raise ConfigError(
            "prunable must be auto, conv, conv+linear or a function of a name and a module, got "
            f"{shown(repr(prunable), 60)}."
        )
    # a layer in several places counts as one user, as it is one layer in the twin
    users: dict[int, list[str]] = {}
    for name, module in network.named_modules():
        for _, key, tensor in tensors(module):
            users.setdefault(id(tensor), []).append(f"{name}.{key}")
    found = 0
    for name, module in network.named_modules():
        if _is_spared(name, spared):
            continue
        for key in _weights_of(name, module, prunable):
            _require_stored(name, module, key)
            if len(users[id(getattr(module, key))]) > 1:
                shared = " and ".join(users[id(getattr(module, key))])
                raise ConfigError(
                    f"{shared} are one tensor; leave them out with prunable=<function> or spared=[...]."
                )
            found += 1
            yield name, key
    if not found:
        more = "Try method.prunable=conv+linear." if prunable == "conv" else "Give a function."
        raise ConfigError(f"nothing to prune: the network has no such weights. {more}")


def _weights_of(name: str, module: nn.Module, prunable: Prunable) -> list[str]:
    if callable(prunable):
        chosen = prunable(name, module)
    else:
        linear = (nn.Linear, nn.MultiheadAttention) if prunable == "conv+linear" else ()
        chosen = isinstance(module, (*_CONVOLUTIONS, *linear))
    keys = _NAMES if chosen else ()
    return [key for key in keys if isinstance(getattr(module, key, None), Tensor)]


def held_elsewhere(network: nn.Module, targets: Iterable[tuple[str, str]]) -> list[str]:
    """Attributes, such as lists, that contain weights of ``targets`` besides the layers these belong to."""
    pruned = frozenset(id(getattr(network.get_submodule(name), key)) for name, key in targets)
    return [
        f"{name or 'the network'}.{key}"
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if key not in HELD_BY_TORCH and holds_one(value, pruned)
    ]


def left_whole(
    network: nn.Module,
    prunable: Prunable,
    targets: Iterable[tuple[str, str]],
    spared: tuple[str, ...],
) -> list[str]:
    """Layers that a function chooses but of which nothing is pruned, because their matrices have other names."""
    taken = {name for name, _ in targets}
    return [
        name
        for name, module in network.named_modules()
        if callable(prunable)
        and name not in taken
        and not _is_spared(name, spared)
        and any(tensor.ndim > 1 for tensor in module._parameters.values() if tensor is not None)
        and prunable(name, module)
    ]


def _require_stored(name: str, module: nn.Module, key: str) -> None:
    """Raise ConfigError unless the weight that the layer uses is the parameter of that name."""
    weight = module._parameters.get(key)
    if isinstance(weight, UninitializedParameter):
        raise ConfigError(
            f"{name}.{key} has no shape yet. Run the network once before its competitor is built."
        )
    if isinstance(weight, nn.Parameter):
        return
    sources = [other for other in module._parameters if other.startswith(f"{key}_")]
    if parametrize.is_parametrized(module, key):
        why = "is parametrised already (torch.nn.utils.parametrize)"
    elif sources:
        why = f"is computed from {' and '.join(sources)} (torch.nn.utils.prune, spectral_norm or weight_norm)"
    else:
        why = "is not a parameter"
    raise ConfigError(
        f"{name}.{key} {why}, so a mask on it would have no effect. Remove that first, or leave the layer out with "
        "prunable=<function> or spared=[...]."
    )
