"""GH against numbers computed with the arithmetic of its authors: loss, memory, prior, and a whole loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import method_conformance as conformance
from outside_method import HardImages
from sdclr import PretrainConfig, nt_xent, pretrain, recipe, register_method, resume
from sdclr.batch import Views
from sdclr.compute.optim import build_optimizer, set_learning_rate
from sdclr.errors import ConfigError
from sdclr.methods import METHODS
from sdclr.methods.config import GHConfig, SDCLRConfig, SimCLRConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.gh import GH, gh_losses, nearest_share, scores, simplex, sinkhorn
from sdclr.methods.simclr import SimCLR
from sdclr.methods.table import method_title
from sdclr.run.outside import outside_parts, use_options

EXACT = {"rtol": 1e-12, "atol": 1e-13}


def stored(golden: Path, name: str) -> dict[str, Tensor]:
    with np.load(golden / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def loss_values(golden: Path) -> dict[str, Tensor]:
    return stored(golden, "gh_loss.npz")


@pytest.fixture(scope="module")
def memory_values(golden: Path) -> dict[str, Tensor]:
    return stored(golden, "gh_memory.npz")


def test_directions_are_a_simplex_and_a_function_of_the_seed() -> None:
    found = simplex(8, 16, seed=3)
    expected = 8 / 7 * torch.eye(8, dtype=torch.float64) - 1 / 7
    torch.testing.assert_close(found @ found.T, expected, rtol=0, atol=1e-13)
    assert torch.equal(found, simplex(8, 16, seed=3))
    assert not torch.equal(found, simplex(8, 16, seed=4))
    with pytest.raises(ConfigError, match=r"num_directions must be from 2 to .* size 16, got 17"):
        simplex(17, 16, seed=0)


def test_scores_are_the_references(loss_values: dict[str, Tensor]) -> None:
    for view in "12":
        found = scores(loss_values[f"z{view}"], loss_values["directions"])
        torch.testing.assert_close(found, loss_values[f"scores{view}"], **EXACT)


@pytest.mark.parametrize("tag", ["uniform", "prior", "zeros", "floor"])
def test_soft_labels_losses_and_gradients_are_the_references(
    loss_values: dict[str, Tensor], tag: str
) -> None:
    values = loss_values
    prior = values.get(f"p_{tag}", torch.full((8,), 1 / 8, dtype=torch.float64))
    for rounds in (1, 3, 300):
        for view in "12":
            labels = sinkhorn(values[f"scores{view}"], prior, rounds)
            expected = values[f"q{view}_{tag}_{rounds}"]
            torch.testing.assert_close(labels, expected, rtol=1e-10, atol=1e-12)
    z = [values[name].clone().requires_grad_() for name in ("z1", "z2")]
    losses = gh_losses(*(scores(one, values["directions"]) for one in z), prior)
    torch.testing.assert_close(losses.mean(), values[f"loss_{tag}"], rtol=1e-10, atol=1e-12)
    losses.mean().backward()
    for one, name in zip(z, ("z1", "z2"), strict=True):
        expected = values[f"grad_{name}_{tag}"]
        torch.testing.assert_close(one.grad, expected, rtol=1e-10, atol=1e-12)


def test_an_images_labels_sum_to_one_and_their_mean_is_the_prior() -> None:
    own = scores(torch.randn(40, 16, dtype=torch.float64), simplex(8, 16, seed=0))
    prior = torch.tensor([1.0, 2, 3, 4, 5, 0, 6, 7], dtype=torch.float64)
    labels = sinkhorn(own, prior, 300)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(labels.mean(dim=0), prior / prior.sum(), rtol=1e-6, atol=1e-9)
    assert not labels[:, 5].any()


class Given(ContrastiveMethod):
    """Images are projections already, or go through one matrix; NT-Xent where there is one."""

    def __init__(self, matrix: Tensor | None = None) -> None:
        super().__init__()
        self.network = nn.Linear(16, 16, bias=False)
        self.plain = matrix is None
        if matrix is not None:
            self.network.weight.data = matrix.T.clone()

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        if self.plain:
            return views.a, views.b
        return self.network(views.a), self.network(views.b)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return z_a.sum(dim=1) if self.plain else nt_xent(z_a, z_b, 0.2)


def test_memory_and_prior_of_cifar_are_the_references(memory_values: dict[str, Tensor]) -> None:
    """The average keeps 0.9 in two epochs, 0.999 in two; the prior of every epoch is compared."""
    values = memory_values
    directions = values["directions"].double()
    method = GH(Given(), directions, 24, warmup_epochs=2, rebuild_every_epochs=1).double()
    method.directions = directions
    for epoch, order in enumerate(values["orders"].long()):
        method.on_epoch_start(epoch)
        for index in order.split(7):
            z = values["features"][epoch, index]
            method(Views(z, z, index))
        method.on_epoch_end(epoch)
        torch.testing.assert_close(method.score_memory, values["memory"][epoch], **EXACT)
        prior = nearest_share(method.score_memory)
        torch.testing.assert_close(prior, values["prior"][epoch].double(), **EXACT)
        with_floor = nearest_share(method.score_memory, 100)
        torch.testing.assert_close(with_floor, values["prior_floor100"][epoch].double(), **EXACT)
        if epoch >= 1:
            torch.testing.assert_close(method.prior, prior)


def test_the_imagenet_variant_remembers_from_the_tenth_epoch_on(
    memory_values: dict[str, Tensor],
) -> None:
    """The stored scores are no projections' scores: they are remembered as they are."""
    values = memory_values
    directions = values["directions"]
    method = GH(Given(), directions, 6, warmup_epochs=20, variant="imagenet").double()
    for number, epoch in enumerate(values["imagenet_epochs"].tolist()):
        method.on_epoch_start(int(epoch) - 1)
        method._remember(values["imagenet_scores"][number], torch.arange(6))
        expected = values["imagenet_memory"][number]
        torch.testing.assert_close(method.score_memory, expected, **EXACT)


@pytest.mark.journeys
def test_a_whole_training_is_the_references(golden: Path) -> None:
    """44 epochs of 3 batches of 8; the prior is found anew in epochs 20 and 40, after each batch."""
    values = stored(golden, "gh_trace.npz")
    method = GH(
        Given(values["W0"]),
        values["directions"],
        24,
        warmup_epochs=20,
        ramp_epochs=10,
        keep_after=0.5,
    ).double()
    method.directions = values["directions"].double()
    optimizer = build_optimizer(method.parameters(), name="sgd", momentum=0.9, weight_decay=5e-4)
    step = 0
    for epoch, order in enumerate(values["orders"].long()):
        method.on_epoch_start(epoch)
        for index in order.split(8):
            set_learning_rate(optimizer, float(values["lr"][step]))
            optimizer.zero_grad()
            loss = method(Views(values["x1"][index], values["x2"][index], index)).mean()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(loss, values["loss"][step], rtol=1e-8, atol=1e-10)
            if epoch >= 20:
                expected = values["prior_used"][step].double()
                torch.testing.assert_close(method.prior, expected, rtol=0, atol=1e-12)
                torch.testing.assert_close(method.weight, values["weight"][step], **EXACT)
            step += 1
        method.on_epoch_end(epoch)
    weight = method.network.get_parameter("weight").T
    torch.testing.assert_close(weight, values["W_end"], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(method.score_memory, values["memory_end"], rtol=1e-8, atol=1e-10)


BASES = ["sdclr", "bcl_d", "moco", "vicreg"]


@pytest.mark.parametrize("base", BASES)
def test_any_contrastive_method_can_be_its_base(base: str) -> None:
    own = json.dumps({"name": base})
    conformance.loss_is_per_image("gh", f"base={own}")
    conformance.gradients_reach_every_parameter("gh", f"base={own}")


@pytest.mark.journeys
def test_a_stopped_run_on_bcl_ends_like_a_whole_one(tmp_path: Path) -> None:
    """Both have a memory; the loss of GH has set in."""
    overrides = ("method.base.name=bcl_d", "method.warmup_share=0.3", "method.ramp_epochs=1")
    conformance.a_stopped_run_ends_like_a_whole_one("gh", tmp_path, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cifar", "imagenet"])
def test_two_processes_are_one_with_its_loss_at_work(variant: str, tmp_path: Path) -> None:
    overrides = (
        f"method.variant={variant}",
        "method.warmup_share=0.5",
        "method.ramp_epochs=1",
        "method.rebuild_every_epochs=1",
        "epochs=4",
    )
    conformance.two_processes_are_one("gh", tmp_path, *overrides)


def test_its_loss_sets_in_after_the_warmup(tmp_path: Path) -> None:
    overrides = ("method.warmup_share=0.34", "method.ramp_epochs=2")
    run = pretrain(conformance.run_config("gh", *overrides), tmp_path / "x")
    assert [line["gh_weight"] for line in run.metrics()] == [0, 0.5, 1]


def test_the_base_is_chosen_as_a_method_is() -> None:
    config = recipe("digits_simclr").with_overrides(
        ["method.name=gh", "method.base.name=sdclr", "method.base.prune_ratio=0.5"]
    )
    assert config.method == GHConfig(base=SDCLRConfig(prune_ratio=0.5))
    assert PretrainConfig.parse(config.to_dict()) == config
    other = config.with_overrides(["method.base.name=focal"])
    assert other.method == GHConfig.parse({"base": {"name": "focal"}}), "from its own defaults"
    same = config.with_overrides(["method.base.name=sdclr", "method.ramp_epochs=3"])
    assert same.method == GHConfig(base=SDCLRConfig(prune_ratio=0.5), ramp_epochs=3)
    with pytest.raises(ConfigError, match=r"method\.base\.prune_rati is not a setting; did you"):
        config.with_overrides(["method.base.prune_rati=0.5"])
    with pytest.raises(ConfigError, match=r"method\.base\.name: there is no method 'sdclt'"):
        config.with_overrides(["method.base.name=sdclt"])
    settings = {"method.name": "gh", "method.base.name": "bcl_d"}
    assert method_title(settings) == "GH on BCL-D"
    assert method_title({"method.name": "mine"}, "Mine & co") == "Mine & co"


class CalmConfig(SimCLRConfig):
    name: Literal["calm"] = "calm"  # type: ignore[assignment]


class Calm(SimCLR):
    """A base from outside the package."""

    config, display_name = CalmConfig, "Calm"


def test_a_run_around_a_base_from_outside_names_it_to_whoever_goes_on(tmp_path: Path) -> None:
    with METHODS.temporarily():
        register_method(Calm)
        run = pretrain(
            conformance.run_config("gh", "method.base.name=calm", "epochs=2"), tmp_path / "x"
        )
        assert run.read_json("environment.json")["method"] == "GH on Calm"
    assert set(outside_parts(run)) == {"method.base"}
    assert use_options(run, "method") == ["--use", outside_parts(run)["method.base"][1]]
    with pytest.raises(ConfigError, match=r"trained with the method calm, .*--use \S+:Calm"):
        resume(run.folder)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with METHODS.temporarily():
        register_method(HardImages)
        config = conformance.run_config("gh", "method.base.name=hard_images")
        with pytest.raises(ConfigError, match="projection"):
            pretrain(config, tmp_path / "a")
    with pytest.raises(ConfigError, match=r"set in after epoch 1, and the run has 1"):
        pretrain(conformance.run_config("gh", "epochs=1"), tmp_path / "b")
