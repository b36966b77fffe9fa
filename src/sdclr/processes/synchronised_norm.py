"""Batch norms over the images of all processes, so that several processes compute what one would.

torch has one for CUDA, with kernels of its own that make the host wait and do not compile. For CPUs and compiled steps,
this module has one in plain arithmetic. B images of this process, C channels.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdclr.errors import ConfigError
from sdclr.processes.exchange import sum_over_processes

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SynchronisedBatchNorm(_BatchNorm):
    """Batch norm of [B, C, ...] whose mean and variance are those of every process's images together.

    Same parameters, buffers and keys as the stock layers; without a process group or in eval mode it behaves like one
    of them. Two exchanges of C numbers per pass. Sums are computed in fp32, or fp64 for fp64 input. ``drop`` and
    ``act`` follow, as in timm's layers that have them.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(self._normalised(input)))

    def _normalised(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
        x = input if input.dtype == torch.float64 else input.float()
        num = x.new_full((1,), x.numel() / x.shape[1])
        totals = sum_over_processes(torch.cat([x.sum(axes), num]))  # [C + 1]
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centred = x - mean.view(shape)
        # two passes: no cancellation
        variance = sum_over_processes(centred.square().sum(axes)) / count
        self._move_statistics(mean.detach(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            return torch.addcmul(
                self.bias.view(shape), centred, (scale * self.weight).view(shape)
            ).to(input.dtype)
        return (centred * scale.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        self.running_mean += weight * (mean.to(self.running_mean.dtype) - self.running_mean)
        self.running_var += weight * (unbiased.to(self.running_var.dtype) - self.running_var)


def synchronise_norms(network: nn.Module, *, fused: bool) -> nn.Module:
    """The network with every batch norm replaced by one over all processes; parameters and keys stay as they are.

    ``fused``: by torch's kernels, for CUDA without a compiler. Raises ConfigError for a batch norm that is neither
    torch's nor timm's.
    """
    with_activation = _timm_norm()
    known = _PLAIN if with_activation is None else (*_PLAIN, with_activation)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in known:
            raise ConfigError(
                f"{name} is a {type(module).__name__}: several processes cannot share its statistics. Use one process, "
                "or a backbone with torch's or timm's batch norms."
            )
    if not fused:
        return _synchronised(network, {})
    if with_activation is None:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    else:
        from timm.layers.norm_act import convert_sync_batchnorm

        network = convert_sync_batchnorm(network)
    if left := [name for name, module in network.named_modules() if type(module) in _PLAIN]:
        raise ConfigError(
            f"{left[0]} is used twice and cannot be synchronised. Use compile=true, or one process."
        )
    return network


def _timm_norm() -> type[Any] | None:
    """timm's batch norm with an activation; None where timm, which takes seconds to import, is not imported yet."""
    found = sys.modules.get("timm.layers.norm_act")
    return None if found is None else found.BatchNormAct2d


def _synchronised(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """``done``: the replacements of modules seen before, so that one that is used twice stays one."""
    if id(module) in done:
        return done[id(module)]
    done[id(module)] = module
    if isinstance(module, _BatchNorm):
        own = SynchronisedBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        own.weight, own.bias = module.weight, module.bias
        own.running_mean, own.running_var = module.running_mean, module.running_var
        own.num_batches_tracked = module.num_batches_tracked
        own.training = module.training
        if (with_activation := _timm_norm()) and isinstance(module, with_activation):
            own.drop, own.act = module.drop, module.act
        done[id(module)] = own
        return own
    for key, child in module._modules.items():
        if child is not None:
            module._modules[key] = _synchronised(child, done)
    return module
