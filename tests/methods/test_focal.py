"""Focal NT-Xent against numbers computed with the arithmetic of its authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdclr import nt_xent
from sdclr.errors import ConfigError
from sdclr.methods import focal
from sdclr.methods.config import FocalConfig
from sdclr.methods.focal import focal_nt_xent


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, torch.Tensor]:
    with np.load(golden / "focal.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("gamma", [2, 0, 1])
@pytest.mark.parametrize("tiled", [False, True])
def test_losses_and_gradients_are_the_references(
    values: dict[str, torch.Tensor], gamma: int, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr("sdclr.methods.nt_xent.TILED_ABOVE", 0)
    z_a, z_b = (values[name].clone().requires_grad_() for name in ("z1", "z2"))
    losses = focal_nt_xent(z_a, z_b, 0.2, gamma)
    torch.testing.assert_close(losses, values[f"loss_gamma{gamma}"], rtol=1e-12, atol=1e-13)
    losses.mean().backward()
    for z, name in ((z_a, "z1"), (z_b, "z2")):
        torch.testing.assert_close(
            z.grad, values[f"grad_{name}_gamma{gamma}"], rtol=1e-11, atol=1e-13
        )


def test_gamma_zero_is_nt_xent(values: dict[str, torch.Tensor]) -> None:
    z_a, z_b = values["z1"], values["z2"]
    torch.testing.assert_close(
        focal_nt_xent(z_a, z_b, 0.2, 0), nt_xent(z_a, z_b, 0.2), rtol=1e-12, atol=1e-13
    )


def test_views_that_are_told_apart_perfectly_give_no_loss_and_a_finite_gradient() -> None:
    z = (100 * torch.eye(4)).requires_grad_()
    losses = focal_nt_xent(z, z, 1e-3, 2.0)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_an_exponent_with_an_infinite_gradient_is_refused() -> None:
    with pytest.raises(ConfigError, match="gamma must be 0 or at least 1"):
        FocalConfig.parse({"gamma": 0.5})
    with pytest.raises(ConfigError, match="gamma must be 0 or at least 1"):
        focal.FocalNTXent(nn.Linear(1, 1), gamma=0.5)
    with pytest.raises(ConfigError, match="gamma must be 0 or at least 1"):
        focal_nt_xent(torch.eye(2), torch.eye(2), 0.2, 0.5)
    assert isinstance(focal.FocalNTXent(nn.Linear(1, 1)).gamma, float)
