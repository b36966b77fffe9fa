"""What a module holds beside parameters, buffers and sub-modules, and how a twin follows it: attributes and hooks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

HELD_BY_TORCH = frozenset(vars(nn.Module()))
"""Attributes of every module: parameters, buffers, sub-modules, hooks."""


HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)


def followed_attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes, other than parameters, buffers and sub-modules, that decide what a forward pass computes.

    Whether it trains is its own affair, and so are results that a forward pass has left behind.
    """
    held = {key: value for key, value in vars(module).items() if key not in HELD_BY_TORCH}
    return {key: value for key, value in held.items() if _is_followed(value)}


def _is_followed(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.grad_fn is None
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_followed, value))
    if isinstance(value, Mapping):
        return all(map(_is_followed, value.values()))
    if isinstance(value, functools.partial):  # of a module the twin has one of its own
        return all(map(_is_followed, (value.func, value.args, value.keywords)))
    return isinstance(
        value, int | float | complex | str | bytes | NoneType | torch.dtype
    ) or _is_function(value)


def calls_the_original(value: object, parts: frozenset[int]) -> bool:
    """Whether a copy of ``value`` would still use one of ``parts``, the ids of a network's modules and parameters.

    A copy of a function is the function itself, with what it has closed over; that of a partial has parts of its own.
    """
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return any(_refers(one, parts) for one in [*cells, *(value.__defaults__ or ())])
    if isinstance(value, functools.partial):
        return any(
            calls_the_original(one, parts)
            for one in (value.func, *value.args, *value.keywords.values())
        )
    if isinstance(value, Mapping):
        return any(calls_the_original(one, parts) for one in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(calls_the_original(one, parts) for one in value)
    return False


def _refers(value: object, parts: frozenset[int]) -> bool:
    if isinstance(value, MethodType):
        value = value.__self__
    if isinstance(value, functools.partial):
        return any(_refers(one, parts) for one in (*value.args, *value.keywords.values()))
    if isinstance(value, list | tuple):
        return any(_refers(one, parts) for one in value)
    return id(value) in parts or calls_the_original(value, parts)


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that has no value yet
        return False


def _is_function(value: object) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType | type | functools.partial)


def is_same(own: object, value: object) -> bool:
    if isinstance(value, Tensor) or _is_function(value):
        return own is value
    if type(own) is not type(value):
        return False
    if isinstance(value, list | tuple):
        pairs = zip(own, value, strict=False)  # type: ignore[call-overload]
        return len(own) == len(value) and all(is_same(a, b) for a, b in pairs)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        assert isinstance(own, Mapping)
        return own.keys() == value.keys() and all(is_same(own[key], value[key]) for key in value)
    return own == value


def as_own(value: Any) -> Any:
    """The value for the twin: containers anew, what they hold and tensors the very same."""
    if isinstance(value, list | tuple | set | frozenset) and type(value) in (
        list,
        tuple,
        set,
        frozenset,
    ):
        return type(value)(map(as_own, value))
    if type(value) is dict:
        return {key: as_own(one) for key, one in value.items()}
    return value


def follow_hooks(hooks: dict[int, Any], own: dict[int, Any], kept: frozenset[int]) -> bool:
    """Make the twin's hooks those of the network, by their numbers; whether that changed anything.

    ``kept``: hooks that are the twin's alone.
    """
    gone = [number for number in own if number not in hooks and number not in kept]
    new = {number: hook for number, hook in hooks.items() if number not in own}
    for number in gone:
        del own[number]
    own.update(new)
    return bool(gone or new)
