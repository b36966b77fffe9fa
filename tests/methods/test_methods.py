from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sdclr import Views, nt_xent
from sdclr.errors import ConfigError
from sdclr.methods import SDCLR, SDCLRConfig, SimCLR, SimCLRConfig, build_method
from sdclr.methods.config import Passes
from sdclr.methods.method import Parts
from sdclr.methods.projector import projector


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def parts() -> Parts:
    return Parts(backbone(), 8, num_images=6, num_epochs=2, seed=0)


def views(count: int = 6) -> Views:
    a, b = torch.rand(2, count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Views(a, b, torch.arange(count))


@pytest.mark.parametrize("config", [SimCLRConfig(projection_dim=4), SDCLRConfig(projection_dim=4)])
def test_every_method_returns_a_finite_loss_per_image_that_reaches_every_parameter(
    config: SimCLRConfig,
) -> None:
    method = build_method(config, parts())
    method.on_epoch_start(0)
    loss = method(views())
    assert loss.shape == (6,)
    assert loss.isfinite().all()
    loss.mean().backward()
    assert all(p.grad is not None for p in method.parameters())


def test_simclr_sees_both_views_in_one_forward() -> None:
    method = SimCLR(nn.Sequential(backbone(), nn.Linear(8, 4)), temperature=0.3)
    v = views()
    z = method.network(torch.cat([v.a, v.b]))
    torch.testing.assert_close(method(v), nt_xent(z[:6], z[6:], 0.3))


def test_sdclr_sends_view_a_through_the_dense_weights_and_view_b_through_the_pruned_ones() -> None:
    method = SDCLR(nn.Sequential(backbone(), nn.Linear(8, 4)), temperature=0.3, prune_ratio=0.5)
    v = views()
    torch.testing.assert_close(method(v), nt_xent(method.network(v.a), method.competitor(v.b), 0.3))


def test_the_projector_is_never_pruned_even_when_linear_layers_are() -> None:
    method = build_method(SDCLRConfig(prunable="conv+linear", projection_dim=4), parts())
    assert isinstance(method, SDCLR)
    assert list(method.competitor.masks()) == ["backbone.0.weight"]


@pytest.mark.parametrize(("layers", "biases", "norms"), [(2, 1, 2), (3, 1, 3)])
def test_the_projector_has_the_references_layers(layers: int, biases: int, norms: int) -> None:
    head = projector(16, 4, layers)
    linears = [m for m in head if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linears] == [16] * (layers - 1) + [4]
    assert sum(m.bias is not None for m in linears) == biases
    assert sum(isinstance(m, nn.BatchNorm1d) and m.affine for m in head) == norms
    assert isinstance(head[-1], nn.BatchNorm1d)
    with pytest.raises(ConfigError, match="2 or 3"):
        projector(16, 4, 5)


@pytest.mark.parametrize("passes", ["joint", "separate"])
def test_what_is_no_pair_of_views_or_projections_is_said(passes: Passes) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    a, b = torch.rand(2, 8, 3, 2, 2)
    with pytest.raises(ConfigError, match="views of the same images are needed, got 8 and 4"):
        SimCLR(network, passes=passes)(Views(a, b[:4], torch.arange(8)))
    with pytest.raises(ConfigError, match=r"takes sdclr\.Views\(a, b, index\), got tuple"):
        SimCLR(network)((a, b))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="passes must be joint or separate, got 'seperate'"):
        SimCLR(network, passes="seperate")  # type: ignore[arg-type]

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.conv(x).mean((2, 3)), x

    for method in (SimCLR(Two()), SDCLR(Two())):
        with pytest.raises(
            ConfigError, match=r"must return projections .* as one tensor, got tuple"
        ):
            method(Views(a, b, torch.arange(8)))
    with pytest.raises(ConfigError, match="takes projections as tensors"):
        nt_xent(np.eye(2), np.eye(2), 0.2)  # type: ignore[arg-type]
    for temperature in (1e-40, 1e38):
        with pytest.raises(ConfigError, match="temperature must be a number above 0"):
            nt_xent(torch.eye(2), torch.eye(2), torch.tensor(temperature))


def test_a_stale_rival_has_nothing_that_it_would_not_use() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    with pytest.raises(ConfigError, match="stale=true needs norms=shared, got norms=own"):
        SDCLR(network, stale=True)
    with pytest.raises(ConfigError, match="two controls"):
        SDCLR(network, stale=True, norms="shared", dropout=0.5)
