from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdclr.errors import ConfigError
from sdclr.optim import build_optimizer, learning_rate, set_learning_rate


@pytest.mark.parametrize(
    ("name", "epochs", "per_epoch"), [("cifar10_lr0.5_e2000_it22", 2000, 22), ("in100_lr0.5_e500_it48", 500, 48)]
)
def test_the_published_schedules_match_the_reference(golden: Path, name: str, epochs: int, per_epoch: int) -> None:
    values = np.load(golden / "lr_schedule.npz")
    ours = [
        learning_rate(int(i) + 1, peak=0.5, total_steps=epochs * per_epoch, warmup_steps=10 * per_epoch)
        for i in values[f"{name}_idx"]
    ]
    np.testing.assert_allclose(ours, values[name], atol=1e-12)
    assert ours[-1] == 1e-6


def test_short_and_unfinished_warm_ups_match_the_reference(golden: Path) -> None:
    values = np.load(golden / "lr_schedule.npz")
    small = [learning_rate(i, peak=0.5, total_steps=100, warmup_steps=50) for i in range(1, 101)]
    np.testing.assert_allclose(small, values["small_lr0.5_e20_it5"], atol=1e-12)
    cut = [learning_rate(i, peak=0.5, total_steps=15, warmup_steps=30) for i in range(1, 16)]
    np.testing.assert_allclose(cut, values["warmup_shorter_than_run_e5_it3"], atol=1e-12)


def test_a_run_without_warm_up_starts_below_its_peak_and_never_divides_by_zero() -> None:
    rates = [learning_rate(i, peak=1.0, total_steps=10, warmup_steps=0) for i in range(1, 11)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 1e-6


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_every_optimiser_moves_each_parameter_once_and_spares_norms_when_told(name: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    twice = [*network.parameters(), *network.parameters()]
    optimizer = build_optimizer(twice, name=name, momentum=0.9, weight_decay=0.1, decay_norms_and_biases=False)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 3]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    set_learning_rate(optimizer, 0.1)
    before = [p.clone() for p in network.parameters()]
    network(torch.rand(8, 4)).pow(3).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ConfigError, match="sgd, lars or adamw"):
        build_optimizer([], name="adam", momentum=0, weight_decay=0)
