"""Each measure of health against its closed form, or against a slow and independent way to compute it."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation import health
from sdclr.evaluation.knn import knn_predict
from sdclr.methods.focal import focal_nt_xent
from sdclr.methods.nt_xent import nt_xent


def views(num: int = 12, dim: int = 6, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, n = torch.randn(2, num, dim, generator=generator)
    return a, a + noise * n


def test_the_examples_of_the_docstrings_run() -> None:
    assert doctest.testmod(health).failed == 0


@pytest.mark.parametrize("num", [2, 3, 64])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 3.0])
def test_a_collapsed_network_has_the_loss_and_top1_of_the_closed_form(
    num: int, temperature: float
) -> None:
    z = torch.randn(1, 7, generator=torch.Generator().manual_seed(1)).repeat(num, 1)
    loss = nt_xent(z, z * 3, temperature).mean().item()
    assert loss == pytest.approx(health.collapsed_loss(num), abs=1e-4)
    assert health.contrastive_top1(z, z * 3) == pytest.approx(health.collapsed_top1(num))
    assert health.embedding_std(torch.cat([z, z])) == pytest.approx(0, abs=1e-7)
    assert health.uniformity(z) == pytest.approx(0, abs=1e-6)
    assert health.alignment(z, z * 3) == pytest.approx(0, abs=1e-6)
    assert health.positive_ranks(z, z * 3).tolist() == pytest.approx([num - 1] * 2 * num)


def test_top1_and_ranks_are_those_of_a_slow_loop() -> None:
    a, b = views(noise=1.5)
    z = torch.cat([a, b]).double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    ranks = []
    for anchor in range(24):
        positive = z[anchor] @ z[(anchor + 12) % 24]
        others = [i for i in range(24) if i not in (anchor, (anchor + 12) % 24)]
        ranks.append(sum(z[anchor] @ z[other] > positive for other in others))
    assert 0 < sum(rank == 0 for rank in ranks) < 24
    assert health.positive_ranks(a, b).tolist() == ranks
    assert health.contrastive_top1(a, b) == pytest.approx(np.mean([rank == 0 for rank in ranks]))


def test_the_largest_deviation_is_that_of_an_evenly_spread_embedding() -> None:
    z = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    assert health.embedding_std(z) == pytest.approx(health.largest_embedding_std(32), rel=0.01)
    assert health.embedding_std(z + 1) < health.largest_embedding_std(32)
    cross = torch.cat([torch.eye(9), -torch.eye(9)])
    assert health.embedding_std(cross) == pytest.approx(1 / 3)


def test_uniformity_is_that_of_a_slow_loop() -> None:
    a, _ = views()
    x = F.normalize(a.double(), dim=1)
    terms = [
        math.exp(-2 * (x[i] - x[j]).square().sum().item())
        for i in range(12)
        for j in range(12)
        if i != j
    ]
    assert health.uniformity(a) == pytest.approx(math.log(sum(terms) / len(terms)))


@pytest.mark.parametrize("dim", [2, 3, 16, 128])
def test_the_uniformity_of_a_sphere_lies_within_its_bounds(dim: int) -> None:
    spread = health.spread_uniformity(dim)
    assert -4 < spread < -4 + 8 / dim
    z = torch.randn(3000, dim, generator=torch.Generator().manual_seed(dim))
    assert health.uniformity(z) == pytest.approx(spread, abs=0.02)


def test_a_simplex_lies_below_the_sphere_by_its_closed_form() -> None:
    simplex = torch.eye(6) - 1 / 6
    assert health.uniformity(simplex) == pytest.approx(-4 - 4 / 5)


def test_lidar_is_that_of_scipys_generalised_eigenvalues() -> None:
    a, b = views(num=40)
    x = torch.stack([a, b], dim=1).double().numpy()
    means = x.mean(axis=1)
    between = np.cov(means.T)
    within = sum(np.cov(one.T) for one in x) / 40 + 1e-4 * np.eye(6)
    values = scipy.linalg.eigh(between, within, eigvals_only=True)
    p = values / values.sum()
    expected = math.exp(-sum(p * np.log(p)))
    assert health.lidar(torch.stack([a, b], dim=1)) == pytest.approx(expected, abs=1e-5)


def test_lidar_counts_directions_of_images_not_of_views() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(60, 1, 8)
    images[:, :, :3] = torch.randn(60, 1, 3, generator=generator)
    noise = torch.zeros(60, 2, 8)
    noise[:, :, 3:] = torch.randn(60, 2, 5, generator=generator)
    assert 2.5 < health.lidar(images + noise) < 3.5
    assert health.lidar(torch.ones(5, 2, 3)) == 1.0


def test_lidar_of_long_projections_in_few_directions_is_a_number() -> None:
    a, b = views(num=10, dim=3)
    lift = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    z = 1e7 * torch.stack([a @ lift, b @ lift], dim=1)
    assert 1 <= health.lidar(z) <= 9


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
def test_a_power_law_is_found(alpha: float) -> None:
    basis = torch.linalg.qr(
        torch.cat(
            [torch.ones(60, 1), torch.randn(60, 20, generator=torch.Generator().manual_seed(0))], 1
        ).double()
    ).Q[:, 1:]  # orthogonal to ones: centred
    features = basis * torch.arange(1, 21) ** (-alpha / 2)
    assert health.alpha_req(features) == pytest.approx(alpha)


def test_too_few_directions_are_no_power_law() -> None:
    assert health.alpha_req(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) is None
    assert health.alpha_req(torch.ones(5, 8)) is None


def test_nearest_neighbours_vote_as_the_probe_does_with_each_image_left_out() -> None:
    a, _ = views(num=30, dim=3)
    labels = np.arange(30) % 3
    a[np.arange(30), labels] += 1.0
    expected = []
    for row in range(30):
        rest = np.array([i for i in range(30) if i != row])
        predicted = knn_predict(a[rest], labels[rest], a[row : row + 1], k=5)
        expected.append(bool(predicted[0] == labels[row]))
    assert health.knn_hits(a, labels, k=5).tolist() == expected
    assert 5 < sum(expected) < 30


def test_labels_in_a_random_order_lie_within_the_deviations_of_chance() -> None:
    a, _ = views(num=60, dim=4)
    found = [
        health.deviations_from_chance(a, np.random.default_rng(seed).integers(0, 5, 60))
        for seed in range(60)
    ]
    assert abs(np.mean(found)) < 0.5
    assert 0.7 < np.std(found) < 1.4
    assert health.deviations_from_chance(a, np.zeros(60, dtype=np.int64)) == 0


@pytest.mark.parametrize("temperature", [1e-6, 0.001, 0.07, 0.2, 1.0, 50.0])
def test_the_temperature_of_a_loss_is_measured(temperature: float) -> None:
    a, b = views(num=32, dim=16)
    found = health.fitted_temperature(a, b, nt_xent(a, b, temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.01)
    assert found.residual < 1e-4


def test_another_loss_is_not_taken_for_nt_xent() -> None:
    a, b = views(num=32, dim=16)
    assert health.fitted_temperature(a, b, focal_nt_xent(a, b, 0.2, 2.0)).residual > 0.01


@pytest.mark.parametrize(
    "call",
    [
        lambda: health.contrastive_top1(torch.ones(1, 2), torch.ones(1, 2)),
        lambda: health.contrastive_top1(torch.ones(3, 2), torch.ones(4, 2)),
        lambda: health.collapsed_loss(1),
        lambda: health.uniformity(torch.ones(1, 2)),
        lambda: health.lidar(torch.ones(4, 1, 3)),
    ],
)
def test_what_cannot_be_contrasted_is_an_error(call: object) -> None:
    with pytest.raises(DataError):
        call()  # type: ignore[operator]
