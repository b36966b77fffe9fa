"""LoTaR's weight against numbers computed with the arithmetic of its authors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from sdclr import Views, nt_xent
from sdclr.errors import ConfigError
from sdclr.methods.config import LoTaRConfig
from sdclr.methods.lotar import LoTaR, distance_weights
from sdclr.methods.projector import projector
from sdclr.methods.simclr import SimCLR

SIGNS: list[tuple[Literal[1, -1], str]] = [(1, "plus"), (-1, "minus")]


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, torch.Tensor]:
    with np.load(golden / "lotar.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize(("sign", "name"), SIGNS)
def test_weights_losses_and_gradients_are_the_references(
    values: dict[str, torch.Tensor], sign: Literal[1, -1], name: str
) -> None:
    z_a, z_b = (values[key].clone().requires_grad_() for key in ("z1", "z2"))
    weights = distance_weights(z_a, z_b, sign)
    losses = weights * nt_xent(z_a, z_b, 0.2)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(weights, values[f"weight_{name}"], **close)
    torch.testing.assert_close(losses, values[f"loss_per_image_{name}"], **close)
    torch.testing.assert_close(losses.mean(), values[f"loss_{name}"], **close)
    losses.mean().backward()
    for z, key in ((z_a, "z1"), (z_b, "z2")):
        torch.testing.assert_close(z.grad, values[f"grad_{key}_{name}"], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_have_mean_one_and_span_one(sign: Literal[1, -1]) -> None:
    a, b = torch.rand(2, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = distance_weights(a, b, sign)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights.max() - weights.min()).item() == pytest.approx(1)


def test_equal_distances_and_a_single_image_weigh_one_with_a_finite_gradient() -> None:
    for num in (1, 3):
        a = torch.ones(num, 2, requires_grad=True)
        weights = distance_weights(a, torch.zeros(num, 2))
        weights.sum().backward()
        assert weights.tolist() == [1.0] * num
        assert a.grad is not None
        assert a.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_images_behind_a_norm_weigh_one_and_their_gradient_is_simclrs(
    dtype: torch.dtype,
) -> None:
    """Both are equally far from their other view: what differs is rounding, by which nothing may be divided."""
    for seed in range(20):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), projector(16, 8, 2))
        net.to(dtype)
        z_a, z_b = (net(torch.rand(2, 3, 4, 4, dtype=dtype)) for _ in range(2))
        assert distance_weights(z_a, z_b).tolist() == [1.0, 1.0]
        method = LoTaR(net)
        views = Views(*torch.rand(2, 2, 3, 4, 4, dtype=dtype), torch.arange(2))
        parameters = list(net.parameters())
        found, expected = (
            torch.autograd.grad(losses.sum(), parameters)
            for losses in (method(views), SimCLR(net, passes="separate")(views))
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("bias", [0.0, 5.0])
def test_two_images_behind_a_norm_weigh_one_in_half_precision(bias: float) -> None:
    """Projections are rounded to bfloat16, and with a bias the two of an image by different amounts."""
    spans = []
    for seed in range(50):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), projector(16, 8, 2))
        norm = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)][-1]
        norm.bias = nn.Parameter(bias * torch.randn(len(norm.running_var)))
        with torch.autocast("cpu", torch.bfloat16):
            z_a, z_b = (net(torch.rand(2, 3, 4, 4)) for _ in range(2))
            assert z_a.dtype == torch.bfloat16
            assert distance_weights(z_a, z_b).tolist() == [1.0, 1.0], seed
            z_a, z_b = (net(torch.rand(8, 3, 4, 4)) for _ in range(2))
            weights = distance_weights(z_a, z_b)
        spans.append((weights.max() - weights.min()).item())
    assert spans == pytest.approx([1.0] * 50), "a real batch is weighted as in single precision"


def test_another_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match="sign"):
        LoTaRConfig.parse({"sign": 2})
