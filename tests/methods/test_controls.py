"""The controls of damage keep the contract, and each does to the competitor what docs/method.md says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import method_conformance as conformance
from sdclr.batch import Views
from sdclr.errors import ConfigError
from sdclr.methods import SDCLR, SDCLRConfig, SimCLR
from sdclr.methods.frozen_copy import FrozenCopy
from sdclr.methods.self_competitor import SelfCompetitor
from slow_variants import slow

CONTROLS = {
    "undamaged": ("sdclr", "prune_ratio=0"),
    # at 0.9 this small network has channels without a weight, which blow rounding up to 6e-9
    "random masks": ("sdclr", "prune_ratio=0.5", "random_share=0.5"),
    "shared norms": ("sdclr", "norms=shared"),
    "stale copy": ("sdclr", "stale=true", "norms=shared"),
    "dropout": ("sdclr", "prune_ratio=0", "dropout=0.1"),
    "norm batch B": ("simclr", "passes=separate"),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_keeps_the_contract(control: str) -> None:
    name, *settings = CONTROLS[control]
    conformance.gradients_reach_every_parameter(name, *settings)
    if control != "dropout":  # which drops by position in the batch
        conformance.loss_is_per_image(name, *settings)


@pytest.mark.compiles
@pytest.mark.parametrize(
    "control",
    [name if name in ("random masks", "stale copy") else slow(name) for name in CONTROLS],
)
def test_a_control_is_compiled_once(control: str) -> None:
    conformance.one_compilation_over_three_epochs(*CONTROLS[control])


@pytest.mark.journeys
@pytest.mark.parametrize("control", ["stale copy", "dropout"])
def test_a_stopped_control_ends_like_a_whole_one(control: str, tmp_path: Path) -> None:
    name, *settings = CONTROLS[control]
    overrides = [f"method.{setting}" for setting in settings]
    conformance.a_stopped_run_ends_like_a_whole_one(name, tmp_path, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["random masks", "stale copy", "norm batch B"])
def test_a_control_on_two_processes_is_the_one_on_one(control: str, tmp_path: Path) -> None:
    name, *settings = CONTROLS[control]
    overrides = [f"method.{setting}" for setting in settings]
    conformance.two_processes_are_one(name, tmp_path, *overrides)


def test_random_masks_are_not_the_magnitudes_masks_and_change_every_epoch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 40, 5), nn.Flatten())
    by_chance = SelfCompetitor(network, prune_ratio=0.9, random_share=0.9)
    assert float(by_chance.sparsity()) == pytest.approx(0.9, abs=0.02)
    weight = network[0].weight.detach()
    size_of_kept = weight[by_chance.masks()["0.weight"]].abs().mean()
    assert float(size_of_kept) == pytest.approx(float(weight.abs().mean()), rel=0.15)
    by_chance.refresh_masks(draw=1)
    assert float(by_chance.mask_churn) == pytest.approx(2 * 0.9 * 0.1, abs=0.02)


def test_a_stale_copy_is_the_pruned_network_of_the_epochs_beginning() -> None:
    method = conformance.built("sdclr", "stale=true", "norms=shared", "prune_ratio=0.5")
    assert isinstance(method, SDCLR)
    assert method.stale_copy is not None
    views = conformance.views()
    pruned = SelfCompetitor(method.network, prune_ratio=0.5, norms="shared", spared=("projector",))
    torch.testing.assert_close(method.project(views)[1], pruned(views.b))
    before = {name: tensor.clone() for name, tensor in method.stale_copy.named_buffers()}
    method(views).mean().backward()
    with torch.no_grad():
        for weight in method.network.parameters():
            weight -= 0.1 * weight.grad
    for name, tensor in method.stale_copy.named_buffers():
        if not name.rpartition(".")[2].startswith(("running", "num_batches")):
            assert torch.equal(tensor, before[name]), name
    method.on_epoch_start(1)
    now = dict(method.stale_copy.copy.named_buffers())
    assert torch.equal(
        now["projector.0.weight"], method.network.get_parameter("projector.0.weight")
    )
    kept = method.competitor.masks()["backbone.0.weight"]
    expected = method.network.get_parameter("backbone.0.weight") * kept
    assert torch.equal(now["backbone.0.weight"], expected)


def test_dropout_touches_the_competitor_alone_and_only_while_it_trains() -> None:
    network = nn.Sequential(nn.Conv2d(3, 50, 3), nn.Flatten())
    competitor = SelfCompetitor(network, prune_ratio=0, dropout=0.25)
    images = torch.rand(4, 3, 6, 6) + 1
    dense, dropped = network(images), competitor(images)
    share = (dropped == 0).float().mean()
    assert float(share) == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(dropped[dropped != 0], (dense / 0.75)[dropped != 0])
    competitor.refresh_masks(1)  # hooks of the network are followed, its own stay
    assert (competitor(images) == 0).any()
    competitor.eval()
    torch.testing.assert_close(competitor(images), dense)


def test_separate_passes_show_a_norm_one_view_at_a_time() -> None:
    a, b = torch.rand(2, 6, 4, dtype=torch.float64)
    network = nn.BatchNorm1d(4).double()
    for passes, mean in (("separate", a.mean(0)), ("joint", torch.cat([a, b]).mean(0))):
        z_a, _ = SimCLR(network, passes=passes).project(Views(a, b, torch.arange(6)))
        spread = (a if passes == "separate" else torch.cat([a, b])).var(0, unbiased=False)
        torch.testing.assert_close(z_a, (a - mean) / (spread + network.eps).sqrt())


def test_weights_that_several_modules_use_stay_equal_in_a_frozen_copy() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    frozen = FrozenCopy(network).double()
    with torch.no_grad():
        network[0].weight += 1
    frozen.move_towards(network.double(), keep=0.5)
    own = dict(frozen.copy.named_buffers(remove_duplicate=False))
    assert torch.equal(own["0.weight"], own["1.weight"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stale": True}, r"stale=true needs norms=shared, got norms=own"),
        ({"stale": True, "norms": "shared", "dropout": 0.1}, "two controls; choose one"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_controls_that_make_no_sense_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SDCLRConfig.parse(settings)
