"""Checks of named tensors before they are used or kept: names, shapes, kinds, finite numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdclr.errors import CheckpointError
from sdclr.safe_text import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with a number that is not finite; one synchronisation per device."""
    import torch

    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    for device in {tensor.device for tensor in floats.values()}:
        here = {
            name: tensor.isfinite().all()
            for name, tensor in floats.items()
            if tensor.device == device
        }
        if not torch.stack(list(here.values())).all():
            return next(name for name, finite in here.items() if not finite)
    return None


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state_dict whose names and shapes must match exactly; CheckpointError lists what does not."""
    expected = module.state_dict()
    check_fit(expected, tensors, where)
    state = OrderedDict(tensors)
    # the versions of the layers, which files do not hold: torchvision's MNASNet refuses to load without
    state._metadata = getattr(expected, "_metadata", {})  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=True)


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError unless ``tensors`` have the names, shapes and kinds of ``expected``, which may be on device meta.

    A kind is a floating-point, complex, boolean or whole number; precisions of one kind may differ.
    """
    common = {name: tensor for name, tensor in expected.items() if name in tensors}
    misshapen = [
        f"{shown(name)} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in common.items()
        if tensors[name].shape != tensor.shape
    ]
    mistyped = [
        f"{shown(name)} {tensors[name].dtype} instead of {tensor.dtype}"
        for name, tensor in common.items()
        if _kind(tensors[name]) != _kind(tensor)
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", [shown(name) for name in expected if name not in tensors]),
            ("unknown", [shown(name) for name in tensors if name not in expected]),
            ("of another shape", misshapen),
            ("of another type", mistyped),
        )
        if names
    ]
    if problems:
        only_types = set(tensors) == set(expected) and not misshapen
        question = (
            "Was it cast as a whole? Counters and masks keep their types; cast the weights only."
            if only_types
            else "Was it another architecture?"
        )
        raise CheckpointError(
            f"{where} does not fit this network: {'; '.join(problems)}. {question}"
        )


def _kind(tensor: Tensor) -> str:
    import torch

    if tensor.is_floating_point():
        return "floating"
    if tensor.is_complex():
        return "complex"
    return "boolean" if tensor.dtype == torch.bool else "whole"
