from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdclr import nt_xent


def slow_nt_xent(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float) -> list[float]:
    """SimCLR Eq. 1, one anchor and one candidate at a time."""
    z = [row.tolist() for row in (*z_a, *z_b)]
    batch = len(z_a)

    def similarity(i: int, j: int) -> float:
        dot = sum(p * q for p, q in zip(z[i], z[j], strict=True))
        return dot / math.sqrt(sum(p * p for p in z[i]) * sum(q * q for q in z[j]))

    def anchor(i: int) -> float:
        positive = (i + batch) % (2 * batch)
        candidates = [math.exp(similarity(i, k) / temperature) for k in range(2 * batch) if k != i]
        return -math.log(math.exp(similarity(i, positive) / temperature) / sum(candidates))

    return [(anchor(i) + anchor(i + batch)) / 2 for i in range(batch)]


def test_the_loss_of_every_image_equals_the_equation_spelt_out() -> None:
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    expected = torch.tensor(slow_nt_xent(z_a, z_b, 0.2), dtype=torch.float64)
    torch.testing.assert_close(nt_xent(z_a, z_b, 0.2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tag", ["a", "b", "c"])
def test_losses_and_gradients_match_the_reference(golden: Path, tag: str) -> None:
    values = np.load(golden / "nt_xent.npz")
    for j, temperature in enumerate(values["temperatures"]):
        # rows alternate between the views
        x = torch.tensor(values[f"{tag}_single_x"], requires_grad=True)
        loss = nt_xent(x[0::2], x[1::2], float(temperature)).mean()
        (gradient,) = torch.autograd.grad(loss, x)
        assert abs(loss.item() - values[f"{tag}_single_loss_{j}"]) < 1e-12
        np.testing.assert_allclose(gradient, values[f"{tag}_single_grad_{j}"], atol=1e-12)
        pair = [torch.tensor(values[f"{tag}_pair_x{view}"], requires_grad=True) for view in (1, 2)]
        loss = nt_xent(*pair, float(temperature)).mean()
        gradients = torch.autograd.grad(loss, pair)
        assert abs(loss.item() - values[f"{tag}_pair_loss_{j}"]) < 1e-12
        for view in (1, 2):
            np.testing.assert_allclose(
                gradients[view - 1], values[f"{tag}_pair_grad{view}_{j}"], atol=1e-12
            )
        single = nt_xent(pair[0].float(), pair[1].float(), float(temperature)).mean()
        assert abs(single.item() - values[f"{tag}_pair_loss32_{j}"]) < 1e-6


def test_low_precision_input_is_computed_in_fp32() -> None:
    generator = torch.Generator().manual_seed(1)
    z_a = torch.randn(64, 32, generator=generator).bfloat16()
    z_b = (
        z_a.float() + 0.05 * torch.randn(64, 32, generator=generator)
    ).bfloat16()  # close views: bf16 logits fail
    exact = nt_xent(z_a.double(), z_b.double(), 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = nt_xent(z_a, z_b, 0.1)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), exact, rtol=1e-5, atol=1e-5)


def test_gradients_stay_finite_at_a_tiny_temperature() -> None:
    z = torch.randn(8, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
    nt_xent(z, z + 0.01, 0.005).mean().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
