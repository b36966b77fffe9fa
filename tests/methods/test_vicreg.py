"""VICReg against lightly's loss, and how its batch loss is split over the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdclr.errors import ConfigError
from sdclr.methods.vicreg import vicreg


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "vicreg.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("spread", ["narrow", "wide"])
def test_the_mean_over_images_and_its_gradient_are_lightlys(
    values: dict[str, Tensor], spread: str
) -> None:
    z_a, z_b = (values[f"z_{view}_{spread}"].clone().requires_grad_() for view in "ab")
    loss = vicreg(z_a, z_b).mean()
    loss.backward()
    torch.testing.assert_close(loss, values[f"loss_{spread}"], rtol=1e-12, atol=1e-13)
    for z, view in ((z_a, "a"), (z_b, "b")):
        torch.testing.assert_close(z.grad, values[f"grad_{view}_{spread}"], rtol=1e-11, atol=1e-12)


def test_an_image_at_the_mean_has_no_covariance_and_the_largest_part_of_the_variance() -> None:
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64) / 2
    covariance = vicreg(z, z, invariance=0, variance=0)
    assert covariance[2] == 0
    assert covariance[0] == covariance[1] > 0
    variance = vicreg(z, z, invariance=0, covariance=0)
    assert variance[2] > variance[0]


def test_terms_that_weigh_nothing_leave_the_distance_of_the_views() -> None:
    z_a, z_b = torch.rand(2, 5, 3)
    found = vicreg(z_a, z_b, invariance=2.0, variance=0, covariance=0)
    torch.testing.assert_close(found, 2 * (z_a - z_b).square().mean(dim=1))


def test_a_batch_of_one_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 images, got 1"):
        vicreg(torch.ones(1, 3), torch.ones(1, 3))
