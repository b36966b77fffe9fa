"""torch's random draws in one thread, from a generator of the call's own.

A function that takes a generator is given it. Others draw internally: dropout, ``randint_like``,
``torch.distributions``. Of these, the operators that torch itself marks as random are given it, where torch dispatches
them. Draws that do not pass through torch's Python functions are not redirected: TorchScript, extensions, other
threads. :class:`Escapes` detects them.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sdclr.compute.process_state import default_generators

Way = Callable[[torch.Generator, Any, tuple[Any, ...], dict[str, Any]], Any]
"""A way to call a function so that it draws from a generator."""

_TAKE_A_GENERATOR = frozenset(
    {
        *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli),
        *(torch.multinomial, torch.poisson),
        *(torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.random_),
        *(torch.Tensor.bernoulli_, torch.Tensor.exponential_, torch.Tensor.geometric_),
        *(torch.Tensor.cauchy_, torch.Tensor.log_normal_, torch.Tensor.bernoulli),
        torch.Tensor.multinomial,
    }
)
"""Called directly, which is faster than through the dispatcher; functions missing here are redirected all the same."""
_LIKE: dict[Any, Callable[..., Tensor]] = {
    torch.rand_like: torch.Tensor.uniform_,
    torch.randn_like: torch.Tensor.normal_,
}
"""Functions that do not take one in every version, and methods that fill a tensor in the same way. Faster, as above."""
_COMPILED = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
)
"""Types of functions whose name is that of the operator."""
_FUNCTIONAL = (F.__name__, "torch.functional")
"""Modules whose functions call others of the same module, or operators."""


class DrawsFrom(TorchFunctionMode):
    """Inside the block, this thread's draws come from a generator, where no other is given."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        way = _way(func)
        if way is None:
            return func(*args, **(kwargs or {}))
        return way(self._generator, func, args, dict(kwargs or {}))


@lru_cache(maxsize=4096)
def _way(func: Any) -> Way | None:
    """How to call a function; None for functions that do not draw."""
    if func in _TAKE_A_GENERATOR:
        return _given
    if func in _LIKE:
        return _filled
    if isinstance(func, _COMPILED):
        return _dispatched if _draws(func.__name__) else None
    module = getattr(func, "__module__", None)
    if module == "torch._tensor":  # methods of a tensor: arithmetic, conversions
        return None
    if module in _FUNCTIONAL and not _draws_inside(func):
        return None
    return _dispatched


def _given(
    generator: torch.Generator, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if kwargs.get("generator") is None:
        kwargs["generator"] = generator
    return func(*args, **kwargs)


def _filled(
    generator: torch.Generator, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """dtype, layout, memory format and requires_grad are those of ``empty_like`` with the same arguments."""
    wanted = kwargs.pop("generator", None) or generator
    with torch.no_grad():
        return _LIKE[func](torch.empty_like(*args, **kwargs), generator=wanted)


def _dispatched(
    generator: torch.Generator, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with _Operators(generator):
        return func(*args, **kwargs)


def _draws(name: str) -> bool:
    """Whether torch marks an operator of this name as random."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return False
    tags = (getattr(packet, overload).tags for overload in packet.overloads())
    return any(torch.Tag.nondeterministic_seeded in of_one for of_one in tags)


def _draws_inside(func: Any) -> bool:
    """Whether a Python function names a random operator, or calls a function of its module that does.

    Also true where its code does not show what it calls.
    """
    seen: set[Any] = set()
    ahead = [func]
    while ahead:
        one = ahead.pop()
        if not isinstance(one, types.FunctionType) or one.__closure__:
            return True
        seen.add(one)
        for name in one.__code__.co_names:
            if _draws(name):
                return True
            called = one.__globals__.get(name)
            if getattr(called, "__module__", None) in _FUNCTIONAL and called not in seen:
                ahead.append(called)
    return False


class _Operators(TorchDispatchMode):
    """Inside the block, operators that torch marks as random draw from a generator, where no other is given."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        led = _with_generator(func)
        if led is None:  # seed the default generators around the call; our other calls wait
            seed = int(torch.randint(2**62, (), generator=self._generator))
            with default_generators(seed, torch.device("cpu")):
                return func(*args, **kwargs)
        place = _place_of_generator(led)
        if len(args) > place:
            args = (*args[:place], args[place] or self._generator, *args[place + 1 :])
        elif kwargs.get("generator") is None:
            kwargs["generator"] = self._generator
        return led(*args, **kwargs)


@lru_cache(maxsize=256)
def _with_generator(operator: Any) -> Any:
    """The operator, or the overload of it with the same arguments and a generator; None where there is neither."""
    names = _argument_names(operator)
    if "generator" in names:
        return operator
    packet = operator.overloadpacket
    for overload in packet.overloads():
        other = getattr(packet, overload)
        others = _argument_names(other)
        if "generator" in others and [name for name in others if name != "generator"] == names:
            return other
    return None


def _argument_names(operator: Any) -> list[str]:
    return [argument.name for argument in operator._schema.arguments]


@lru_cache(maxsize=256)
def _place_of_generator(operator: Any) -> int:
    """The position of the generator; beyond all positions where it is keyword-only."""
    for place, argument in enumerate(operator._schema.arguments):
        if argument.name == "generator" and not argument.kwarg_only:
            return place
    return len(operator._schema.arguments)


class Escapes:
    """Whether a view has drawn from torch's default generator after all, so that it cannot be reproduced.

    Other threads move that generator, too: a training step seeds it. So a view during which it has moved is made a
    second time, and only a difference is evidence. This is limited, so that the views of a run are at most a hundredth
    slower. ``from_globals``: whether a function that is given a generator still draws from those of ``random`` or
    NumPy.
    """

    def __init__(self) -> None:
        self.found = self.from_globals = False
        # without a lock: a view that two threads count as one changes nothing
        self._made = self._compared = 0

    def to_be_compared(self, before: bytes) -> bool:
        """Whether to make the view that has just been made again; ``before``: the state before it."""
        self._made += 1
        if self.found or self._compared > 8 + self._made // 100:
            return False
        if default_state() == before:
            return False
        self._compared += 1
        return True


def default_state() -> bytes:
    """The state of torch's default generator on the CPU."""
    return torch.default_generator.get_state().numpy().tobytes()
