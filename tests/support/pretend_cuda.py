"""CUDA tensors without a CUDA device: shapes, dtypes and devices are followed, nothing is computed.

An operation that mixes devices fails as it would on one. What reads a value cannot be tested so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = torch.device("cuda")


@contextmanager
def pretended_cuda() -> Iterator[torch.device]:
    """A device on which tensors can be made inside the block."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield CUDA


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """The same module with tensors of the same shapes on ``device``, made inside :func:`pretended_cuda`."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            there = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(part, name, nn.Parameter(there, requires_grad=parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    return module
