"""A module's attributes and hooks besides parameters, buffers and sub-modules, and how a twin follows them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CellType, FunctionType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

from sdclr.errors import ConfigError

HELD_BY_TORCH = frozenset(vars(nn.Module()))
"""Attributes of every module: parameters, buffers, sub-modules, hooks."""


_CONTAINERS = (functools.partial, list, tuple, set, frozenset, Mapping)


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)


def followed_attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes, other than parameters, buffers and sub-modules, that affect what a forward pass computes.

    The training mode is not followed, nor are results that a forward pass has stored.
    """
    held = {key: value for key, value in vars(module).items() if key not in HELD_BY_TORCH}
    return {key: value for key, value in held.items() if _is_followed(value)}


def _is_followed(value: object, within: frozenset[int] = frozenset()) -> bool:
    if isinstance(value, Tensor):
        return value.grad_fn is None
    if isinstance(value, _CONTAINERS):
        if id(value) in within:  # it contains itself, and a copy of it could not be compared
            return False
        # for a partial of a module, the twin has its own
        return all(_is_followed(one, within | {id(value)}) for one in _held(value))
    return isinstance(
        value, int | float | complex | str | bytes | NoneType | torch.dtype
    ) or _is_function(value)


def calls_the_original(value: object, parts: frozenset[int]) -> bool:
    """Whether a copy of ``value`` would still use one of ``parts``, the ids of a network's modules and parameters.

    A copy of a function is the function itself, with its closure; a copy of anything else inspected here has copies of
    the parts.
    """
    if not isinstance(value, _CONTAINERS) and not callable(value):  # mostly numbers and texts
        return False
    return any(_refers(one, parts, set()) for one in _closed_over(value, set()))


def holds_one(value: object, parts: frozenset[int]) -> bool:
    """Whether a container contains one of ``parts``, the ids of a network's parameters."""
    return isinstance(value, _CONTAINERS) and _refers(value, parts, set())


def _closed_over(value: object, seen: set[int]) -> Iterator[object]:
    """The closures of the functions in ``value``, and their defaults."""
    if id(value) in seen:  # a list may contain itself
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    for one in _held(value):
        yield from _closed_over(one, seen)


def _refers(value: object, parts: frozenset[int], seen: set[int]) -> bool:
    """Whether a function that has closed over ``value`` would use one of ``parts``."""
    if id(value) in seen:  # a function may have closed over itself
        return False
    seen.add(id(value))
    if id(value) in parts or id(getattr(value, "__self__", None)) in parts:
        return True
    closed = _closed_over(value, set()) if isinstance(value, FunctionType) else ()
    return any(_refers(one, parts, seen) for one in (*_held(value), *closed))


def _held(value: object) -> Iterable[object]:
    """The content of a container or a partial."""
    if isinstance(value, functools.partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if callable(value) and not isinstance(value, nn.Module | type | FunctionType):
        return getattr(value, "__dict__", {}).values()  # a callable object
    return ()


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
    """The value for the twin: new containers with the same content; tensors are shared."""
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


def hooks_of(module: nn.Module) -> dict[str, dict[int, Any]]:
    """The module's forward hooks, by kind and number."""
    return {kind: vars(module)[kind] for kind in _HOOKS}


def follow_hooks(
    hooks: dict[int, Any], own: dict[int, Any], kept: frozenset[int], twins: Mapping[int, Any]
) -> bool:
    """Make the twin's hooks those of the network, by their numbers; return whether that changed anything.

    ``kept``: hooks that belong only to the twin. ``twins``: id -> replacement of the network's modules, parameters and
    buffers in a method, a partial or another callable object. Raises ConfigError for an object that cannot be copied.
    """
    gone = [number for number in own if number not in hooks and number not in kept]
    new = {number: hook for number, hook in hooks.items() if number not in own}
    for number in gone:
        del own[number]
    own.update({number: _of_twin(hook, twins) for number, hook in new.items()})
    return bool(gone or new)


def _of_twin(hook: Any, twins: Mapping[int, Any]) -> Any:
    """A copy like that of a twin built now."""
    try:
        return copy.deepcopy(hook, dict(twins))
    except Exception as error:  # part of it cannot be copied: a lock, a result of a forward pass
        raise ConfigError(
            f"a forward hook of the network ({type(hook).__name__}) cannot be copied for its competitor: {error}. Make "
            "it a function, or a method of its module."
        ) from error
