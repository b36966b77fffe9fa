from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sdclr.compute.optim import (
    _step_and_undo,
    build_optimizer,
    learning_rate,
    restore_state,
    set_learning_rate,
    state_names,
    state_of,
    step_if,
)
from sdclr.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "epochs", "per_epoch"),
    [("cifar10_lr0.5_e2000_it22", 2000, 22), ("in100_lr0.5_e500_it48", 500, 48)],
)
def test_the_published_schedules_match_the_reference(
    golden: Path, name: str, epochs: int, per_epoch: int
) -> None:
    values = np.load(golden / "lr_schedule.npz")
    ours = [
        learning_rate(
            int(i) + 1, peak=0.5, total_steps=epochs * per_epoch, warmup_steps=10 * per_epoch
        )
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
    optimizer = build_optimizer(
        twice, name=name, momentum=0.9, weight_decay=0.1, decay_norms_and_biases=False
    )
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


def trained(name: str, steps: int = 2) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.arange(1.0, 7.0).view(2, 3))
    if name == "fused sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            [weight], momentum=0.9, weight_decay=0.1, fused=True
        )
    else:
        optimizer = build_optimizer([weight], name=name, momentum=0.9, weight_decay=0.1)
    set_learning_rate(optimizer, 0.1)
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return weight, optimizer


def everything(weight: nn.Parameter, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [
        weight.detach().clone(),
        *(torch.as_tensor(v).clone() for v in optimizer.state[weight].values()),
    ]


WAYS = [(name, step) for name in ("sgd", "lars", "adamw") for step in (step_if, _step_and_undo)]
WAYS += [("fused sgd", step_if)]  # which looks at the flag itself


@pytest.mark.parametrize(("name", "step"), WAYS)
def test_a_step_that_is_not_finite_moves_neither_weights_nor_state(name: str, step: Any) -> None:
    weight, optimizer = trained(name)
    before = everything(weight, optimizer)
    weight.grad = torch.full_like(weight, torch.nan)
    step(torch.tensor(False), optimizer)
    assert all(map(torch.equal, before, everything(weight, optimizer)))


@pytest.mark.parametrize(("name", "step"), WAYS)
def test_a_finite_step_is_the_optimisers_own(name: str, step: Any) -> None:
    plain, gated = trained(name), trained(name)
    for weight, _ in (plain, gated):
        weight.grad = torch.full_like(weight, 0.3)
    plain[1].step()
    step(torch.tensor(True), gated[1])
    assert all(map(torch.equal, everything(*plain), everything(*gated)))


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_first_step_that_is_not_finite_leaves_a_state_as_if_it_had_not_been(name: str) -> None:
    weight, optimizer = trained(name, steps=0)
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, torch.nan)
    _step_and_undo(torch.tensor(False), optimizer)
    assert torch.equal(weight, before)
    assert all(not torch.as_tensor(value).any() for value in optimizer.state[weight].values())


@pytest.mark.parametrize(
    ("name", "momentum"), [("sgd", 0.9), ("sgd", 0), ("lars", 0.9), ("lars", 0), ("adamw", 0.9)]
)
def test_the_names_of_the_state_are_what_an_optimiser_keeps(name: str, momentum: float) -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    weight.grad = torch.ones_like(weight)
    optimizer = build_optimizer([weight], name=name, momentum=momentum, weight_decay=0.1)
    optimizer.step()
    assert {k for k, v in optimizer.state[weight].items() if v is not None} == set(
        state_names(name, momentum)
    )


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_restored_state_has_the_layout_of_its_weight(name: str) -> None:
    # a fused update on CUDA refuses any other, so that no run of a channels_last network could go on
    def stepped() -> tuple[nn.Module, torch.optim.Optimizer]:
        layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(layer.parameters(), name=name, momentum=0.9, weight_decay=0.0)
        layer(torch.ones(1, 3, 4, 4)).sum().backward()
        optimizer.step()
        return layer, optimizer

    _, before = stepped()
    saved = {key: value.contiguous() for key, value in state_of(before).items()}  # as a file has it
    layer, after = stepped()
    restore_state(after, saved, state_names(name, 0.9), "the checkpoint")
    restored = after.state[layer.weight]
    for kind in set(restored) - {"step"}:
        assert restored[kind].stride() == layer.weight.stride()
        assert torch.equal(restored[kind], before.state_dict()["state"][0][kind])
