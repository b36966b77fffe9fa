"""An operation whose forward pass compiles and whose backward pass the compiler cannot lower; eagerly both work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.lowering import register_lowering


@torch.library.custom_op("sdclr_tests::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return 2 * x


@torch.library.custom_op("sdclr_tests::double_backward", mutates_args=())
def double_backward(gradient: Tensor) -> Tensor:
    return 2 * gradient


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _refuse(*_: Any) -> None:
    raise NotImplementedError("no kernel for the backward pass of double")


double.register_fake(_like)
double_backward.register_fake(_like)
double.register_autograd(lambda _, gradient: double_backward(gradient))
register_lowering(torch.ops.sdclr_tests.double_backward.default, type_promotion_kind=None)(_refuse)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return double(x)
