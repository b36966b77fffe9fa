"""A deep copy of a network that shares the network's tensors, except for norms of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from types import MethodType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from sdclr.compute.wrapped_modules import wraps_another
from sdclr.errors import ConfigError
from sdclr.methods.module_attributes import (
    HELD_BY_TORCH,
    calls_the_original,
    followed_attributes,
    holds_one,
    hooks_of,
)
from sdclr.methods.weight_mask import is_of_masks
from sdclr.safe_text import first_of

Norms = Literal["own", "own_all", "shared"]


def tied_twin(network: nn.Module, norms: Norms) -> nn.Module:
    """A deep copy of the network that shares all of its tensors except the twin's own norms."""
    if norms not in ("own", "own_all", "shared"):
        raise ConfigError(f"norms must be own, own_all or shared, got {norms!r}.")
    memo: dict[int, Any] = {}
    for module in network.modules():
        if not is_own(module, norms):
            memo |= {id(tensor): tensor for _, _, tensor in tensors(module)}
            plain = (
                value for value in followed_attributes(module).values() if isinstance(value, Tensor)
            )
            memo |= {id(tensor): tensor for tensor in plain}
        if norms == "shared" and _is_batch_norm(module):
            memo[id(module)] = module  # num_batches_tracked and the like must not be duplicated
    try:
        return copy.deepcopy(network, dict(memo))
    except Exception:  # some attribute cannot be copied: a lock, a result of a forward pass
        return copy.deepcopy(network, memo | _shared_attributes(network))


def _shared_attributes(network: nn.Module) -> dict[int, Any]:
    """Attributes, other than tensors and modules, that cannot be copied: both branches use the same object.

    A tensor stored by a forward pass is shared without its graph.
    """
    shared: dict[int, Any] = {}
    for name, module in layers(network):
        held = {key: value for key, value in vars(module).items() if key not in HELD_BY_TORCH}
        for key, value in held.items():
            if isinstance(value, Tensor):
                shared[id(value)] = value.detach()
            elif isinstance(value, nn.Module) or _can_be_copied(value):
                continue
            elif _holds_a_module(value):
                raise ConfigError(
                    f"{name or 'the network'}.{key} ({type(value).__name__}) holds a module and cannot be copied, so "
                    "the network has no competitor. Register its modules as sub-modules (nn.ModuleList)."
                )
            else:
                shared[id(value)] = value
    return shared


def _can_be_copied(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _holds_a_module(value: object) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(parts, Iterable) and any(isinstance(part, nn.Module) for part in parts)


class Tie(NamedTuple):
    """One tensor that both branches use: its place in the network and in the twin."""

    network_slot: dict[str, Any]
    twin: nn.Module
    key: str

    def network_tensor(self) -> Tensor:
        return self.network_slot[self.key]

    def _twin_slot(self) -> tuple[dict[str, Any], str]:
        if parametrize.is_parametrized(self.twin, self.key):
            return self.twin.parametrizations[self.key]._parameters, "original"  # type: ignore[union-attr,index]
        slot = self.twin._parameters if self.key in self.twin._parameters else self.twin._buffers
        return slot, self.key

    def twin_tensor(self) -> Tensor:
        slot, key = self._twin_slot()
        return slot[key]

    def restore(self) -> None:
        slot, key = self._twin_slot()
        slot[key] = self.network_tensor()


def bound_hooks(network: nn.Module, modules: Iterable[tuple[str, nn.Module]]) -> str | None:
    """A warning if a forward hook of ``modules``, by name, has closed over a part of the network, or holds a weight.

    Not an error: most such hooks only record values.
    """
    parts, weights = _parts(network), frozenset(map(id, network.parameters()))
    bound = [
        name or "the network"
        for name, module in modules
        if any(
            calls_the_original(hook, parts) or holds_one(hook, weights)
            for hooks in hooks_of(module).values()
            for hook in hooks.values()
        )
    ]
    if not bound:
        return None
    return (
        f"a forward hook of {first_of(bound, 3)} holds a part of the network: in the competitor, too, it uses that "
        "part, unmasked, and writes to it. Make it a method of a module, or a functools.partial of one."
    )


def _parts(network: nn.Module) -> frozenset[int]:
    return frozenset(map(id, (*network.modules(), *network.parameters())))


def require_copyable(network: nn.Module) -> None:
    """Raise ConfigError if a copy would still call the original's code: the competitor would be the network itself."""
    parts = _parts(network)
    for name, module in layers(network):
        where = name or "the network"
        if wraps_another(module):
            raise ConfigError(
                f"{where} is wrapped ({type(module).__name__}), and a copy of it would call the original. Give the "
                "plain network; compile or distribute the method instead."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(
                f"{where} is a TorchScript module, which cannot be pruned. Give the plain network."
            )
        replaced = vars(module).get("forward")
        if replaced is not None and not isinstance(replaced, MethodType):
            raise ConfigError(
                f"{where}.forward was replaced by a function, and a copy of it would call the original. Write it as a "
                "method of the module's class."
            )
        for key, value in vars(module).items():
            if key not in HELD_BY_TORCH and calls_the_original(value, parts):
                raise ConfigError(
                    f"{where}.{key} is a function that has closed over a part of the network, and a copy of it would "
                    "call the original. Write it as a method of the module's class."
                )
        _require_plain_tensors(where, module)


def _require_plain_tensors(where: str, module: nn.Module) -> None:
    """Raise ConfigError for parameters that do not have all of their values here, or none yet."""
    for _, key, tensor in tensors(module):
        if is_lazy(tensor):
            raise ConfigError(
                f"{where}.{key} has no shape yet. Run the network once before its competitor is built."
            )
        if type(tensor).__name__ == "DTensor":
            raise ConfigError(
                f"{where}.{key} is shared out over processes (FSDP, tensor parallelism), and a mask needs whole "
                "weights. Build the competitor of the plain network, and train it with torchrun or DDP."
            )


def changed_layers(layers: dict[str, nn.Module], twins: dict[str, nn.Module]) -> list[str]:
    """Changes that cannot be followed, in words: layers that are new, missing, of other types or other parameters."""
    if layers.keys() == twins.keys() and list(layers) != list(twins):
        first = next(pair for pair in zip(twins, layers, strict=True) if pair[0] != pair[1])
        return [f"its layers have another order ({first[1]} comes where {first[0]} was)"]
    changed = [
        f"{name} ({type(layers[name]).__name__}) is new" for name in layers if name not in twins
    ]
    changed += [
        f"{name} ({_type(twins[name]).__name__}) is missing" for name in twins if name not in layers
    ]
    for name in layers:
        module, twin = layers[name], twins.get(name)
        if twin is None or module is twin:
            continue
        if _type(module) is not _type(twin):
            changed.append(f"{name} was {_type(twin).__name__} and is {_type(module).__name__}")
        elif (now := _tensor_names(module)) != (before := _tensor_names(twin)):
            changed.append(
                f"{name} had {', '.join(sorted(before)) or 'nothing'} and has {', '.join(sorted(now))}"
            )
        elif (now_shapes := _own_shapes(module)) != _own_shapes(twin) and _is_batch_norm(module):
            changed.append(f"{name} has other shapes: {now_shapes}")
    return changed


def _type(module: nn.Module) -> type[nn.Module]:
    return parametrize.type_before_parametrizations(module)


def _tensor_names(module: nn.Module) -> set[str]:
    names = {key for _, key, _ in tensors(module)}
    if isinstance(lists := module._modules.get("parametrizations"), nn.ModuleDict):
        names |= {key for key, one in lists.items() if is_of_masks(one)}
    return names


def _own_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for _, key, tensor in tensors(module)}


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether its output depends on the whole batch, or on statistics of earlier ones."""
    return isinstance(module, _BatchNorm) or getattr(module, "running_mean", None) is not None


def is_own(module: nn.Module, norms: Norms) -> bool:
    """Whether the twin has its own layer here, instead of the network's."""
    if norms == "shared":
        return False
    return _is_batch_norm(module) or (
        norms == "own_all" and isinstance(module, nn.LayerNorm | nn.GroupNorm)
    )


def tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """The tensors directly in a module: (the dict that contains it, its name there, the tensor)."""
    for slot in (module._parameters, module._buffers):
        yield from ((slot, key, tensor) for key, tensor in slot.items() if tensor is not None)


def layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules of a tree by name, including repeated ones, without our masks and their containers."""
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None and not is_of_masks(child):
            yield from layers(child, f"{prefix}.{name}" if prefix else name)
