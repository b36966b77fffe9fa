"""A device that has no 64-bit floats, as Apple's GPU (mps) has none, on a machine without one: it computes on the CPU.

Its tensors say that they are on ``mps`` and hold a tensor of the CPU. Whatever makes a float64 tensor there fails, and
so does an operation that mixes both devices, as on the real one, and a copy to the host that nobody waits for. What
else a real one cannot do is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from sdclr.compute import device as device_module

MPS = torch.device("mps")
INSIDE = torch.device("meta")
"""What torch's own code takes for the device: it has no streams, and every build knows it."""


class OnStandIn(Tensor):
    """A tensor of the stand-in."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnStandIn:
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError("the stand-in for mps has no float64")
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=INSIDE,
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    def __init__(self, held: Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(function, args, kwargs or {})


class _Device(TorchDispatchMode):
    """Sends what is asked for on mps to the stand-in."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: Any, kwargs: Any) -> Any:
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    there = [one for one in tensors if isinstance(one, OnStandIn)]
    name = function.overloadpacket.__name__
    wanted = kwargs.get("device")
    onto = bool(there)
    if wanted is not None:
        onto = torch.device(wanted).type in (MPS.type, INSIDE.type)
        kwargs = {**kwargs, "device": torch.device("cpu")} if onto else kwargs
    if there and name not in ("copy_", "_to_copy"):
        for one in tensors:
            # a number of the CPU may join
            alone = not isinstance(one, OnStandIn) and one.dim()
            if alone and name not in ("index", "index_put_", "index_put"):
                raise RuntimeError(f"{name} mixes mps and cpu")
    if kwargs.get("pin_memory") and onto:
        raise RuntimeError("nothing is pinned for mps")
    if onto and kwargs.get("dtype") in (torch.float64, torch.complex128):
        raise TypeError(f"{name}: the stand-in for mps has no float64")
    plain_args, plain_kwargs = tree_map_only(OnStandIn, lambda one: one.held, (args, kwargs))
    if kwargs.get("non_blocking") and there and not onto:
        raise RuntimeError("a copy from mps to the host that nobody waits for may not have arrived")
    found = function(*plain_args, **plain_kwargs)
    if name in ("_local_scalar_dense", "equal"):
        return found
    if not onto:
        return found
    # what works in place returns what it was given
    same = {id(one.held): one for one in there}
    return tree_map_only(
        Tensor, lambda one: same[id(one)] if id(one) in same else OnStandIn(one), found
    )


class _Moves(TorchFunctionMode):
    """``to`` and ``tensor`` ask the build for the device before a dispatch mode sees them."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is Tensor.tolist and isinstance(args[0], OnStandIn):
            return args[0].held.tolist()
        if function is Tensor.to:
            tensor, others = args[0], args[1:]
            copy = kwargs.pop("copy", False)
            device, dtype, waits, layout = _to(others, kwargs)
            here = tensor.device if device is None else device
            if "mps" not in (here.type, tensor.device.type):
                return function(*args, **(kwargs | {"copy": copy}))
            dtype = tensor.dtype if dtype is None else dtype
            same = here.type == tensor.device.type and dtype == tensor.dtype
            if same and not copy and (layout is None or tensor.is_contiguous(memory_format=layout)):
                return tensor
            return torch.ops.aten._to_copy(
                tensor, dtype=dtype, device=here, non_blocking=waits, memory_format=layout
            )
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


def _to(args: Any, kwargs: Any) -> Any:
    if args and isinstance(args[0], Tensor):
        return args[0].device, args[0].dtype, False, None
    return torch._C._nn._parse_to(*args, **kwargs)


@contextmanager
def stand_in_for_mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Inside, torch says that mps is there."""
    import torch._dynamo  # a dispatch mode imports it, and it looks at what is replaced here

    monkeypatch.setattr(device_module, "mps_is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.zeros(0))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: None)
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: None)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Moves(), _Device():
            yield MPS
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
