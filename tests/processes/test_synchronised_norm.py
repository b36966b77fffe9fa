"""Several processes' batch norm is one process's over all their images."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from sdclr.errors import ConfigError
from sdclr.processes.synchronised_norm import SynchronisedBatchNorm, synchronise_norms
from several_processes import on_each

SHARES = (5, 2)
"""Images of each process: not the same number."""


def batch(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SHARES), 3, 4, 4, generator=generator, dtype=torch.float64)
    # a mean far from zero
    return (x * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 30).to(dtype)


def norm(**options: Any) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(3, dtype=torch.float64, **options)
    if made.affine:
        with torch.no_grad():
            made.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            made.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    return made


def trained(layer: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics after two passes."""
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        layer.zero_grad()
        (out * weights).sum().backward()
    grads = {f"gradient {name}": p.grad for name, p in layer.named_parameters()}
    return {"out": out.detach(), "gradient x": leaf.grad, **grads, **dict(layer.named_buffers())}


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.processes
def test_it_equals_one_batch_norm_over_everyones_images(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    x = batch()
    weights = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = trained(norm(**options), x, weights)

    def compute(rank: int) -> dict[str, Tensor]:
        rows = slice(0, SHARES[0]) if rank == 0 else slice(SHARES[0], None)
        return trained(synchronise_norms(norm(**options), fused=False), x[rows], weights[rows])

    both = on_each(2, tmp_path, compute)
    for name, whole in expected.items():
        if name in ("out", "gradient x"):
            found = torch.cat([one[name] for one in both])
        elif name.startswith("gradient"):
            # of their own images each: DDP puts them together
            found = both[0][name] + both[1][name]
        else:
            found = both[0][name]
            assert torch.equal(found, both[1][name]), "statistics are the same bits everywhere"
        torch.testing.assert_close(found, whole, rtol=1e-11, atol=1e-11, msg=name)


@pytest.mark.processes
def test_bf16_images_are_summed_in_fp32(tmp_path: Path) -> None:
    x = batch(torch.bfloat16)

    def compute(rank: int) -> Tensor:
        layer = synchronise_norms(nn.BatchNorm2d(3), fused=False)
        return layer(x[: SHARES[0]] if rank == 0 else x[SHARES[0] :]).detach()

    found = torch.cat(on_each(2, tmp_path, compute))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.double(), nn.BatchNorm2d(3).double()(x.double()).detach(), rtol=0.01, atol=0.01
    )


def test_alone_or_in_eval_mode_it_is_the_stock_layer() -> None:
    stock = norm()
    own = synchronise_norms(copy.deepcopy(stock), fused=False)
    assert isinstance(own, SynchronisedBatchNorm)
    for training in (True, False):
        stock.train(training)
        own.train(training)
        assert torch.equal(own(batch()), stock(batch()))
    assert own.state_dict().keys() == stock.state_dict().keys()


def test_a_network_keeps_its_parameters_and_keys() -> None:
    network = timm.create_model("resnet18", num_classes=0)
    keys, parameters = list(network.state_dict()), list(network.parameters())
    assert synchronise_norms(network, fused=False) is network
    assert list(network.state_dict()) == keys
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert sum(isinstance(module, SynchronisedBatchNorm) for module in network.modules()) == 20
    assert not any(type(module) is nn.BatchNorm2d for module in network.modules())


def test_timms_norms_keep_their_activation() -> None:
    stock = timm.create_model("efficientnet_b0", num_classes=0).double().train()
    own = synchronise_norms(copy.deepcopy(stock), fused=False)
    assert not any(isinstance(module, BatchNormAct2d) for module in own.modules())
    assert list(own.state_dict()) == list(stock.state_dict())
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    for training in (False, True):
        torch.testing.assert_close(
            own.train(training)(images), stock.train(training)(images), rtol=0, atol=0
        )


def test_a_norm_that_is_used_twice_stays_one() -> None:
    bn = nn.BatchNorm1d(3)
    own = synchronise_norms(nn.Sequential(nn.Linear(3, 3), bn, nn.ReLU(), bn), fused=False)
    assert own[1] is own[3]
    assert isinstance(own[3], SynchronisedBatchNorm)


@pytest.mark.parametrize("fused", [False, True])
def test_a_norm_of_another_kind_is_refused_by_name(fused: bool) -> None:
    class Mine(nn.BatchNorm2d):
        pass

    with pytest.raises(
        ConfigError, match="bn is a Mine: several processes cannot share its statistics"
    ):
        synchronise_norms(nn.Sequential(OrderedDict(bn=Mine(3))), fused=fused)
