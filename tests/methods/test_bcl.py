"""BCL's memory and weights against numbers computed with the arithmetic of its authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import method_conformance as conformance
from sdclr import pretrain
from sdclr.batch import Views
from sdclr.errors import ConfigError
from sdclr.methods.bcl import BCL, BCLI, augmentation_weights
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.simclr import SimCLR


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "bcl_memory.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


class GivenLosses(ContrastiveMethod):
    """The pixel of an image is its loss."""

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return views.a, views.b

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return z_a


def epoch(method: BCL, losses: Tensor, order: Tensor, number: int) -> None:
    method.on_epoch_start(number)
    for index in order.long().split(5):
        method(Views(losses[index], losses[index], index))
    method.on_epoch_end(number)


@pytest.mark.parametrize(
    ("losses", "keep", "suffix"),
    [("losses", 0.97, ""), ("losses", 0.5, "_beta0.5"), ("losses_flipped", 0.97, "_flipped")],
)
def test_memory_and_weights_after_every_epoch_are_the_references(
    values: dict[str, Tensor], losses: str, keep: float, suffix: str
) -> None:
    method = BCL(GivenLosses(), 12, keep=keep).double()
    assert not method.random_operations().weight.any(), "nothing is applied in the first epoch"
    close = {"rtol": 1e-12, "atol": 1e-13}
    for number, (of_images, order) in enumerate(zip(values[losses], values["orders"], strict=True)):
        epoch(method, of_images, order, number)
        torch.testing.assert_close(method.weight, values[f"weights{suffix}"][number], **close)
        if f"memory{suffix}" in values:
            found = method.loss_memory[:, 0]
            torch.testing.assert_close(found, values[f"memory{suffix}"][number], **close)


def test_the_weights_have_mean_one_half_and_an_image_at_an_end(values: dict[str, Tensor]) -> None:
    for losses in values["losses"]:
        weights = augmentation_weights(losses, torch.ones(12, dtype=torch.bool))
        assert weights.mean().item() == pytest.approx(0.5)
        assert weights.max() == 1 or weights.min() == 0


def test_equal_memories_and_images_never_met_get_no_operation() -> None:
    known = torch.ones(3, dtype=torch.bool)
    assert augmentation_weights(torch.full((3,), 2.0), known).tolist() == [0, 0, 0]
    for num, memory in ((405, 5.5412), (22, 2.3), (7, 3.3333)):  # their mean is off by rounding
        same = torch.full((num,), memory)
        assert not augmentation_weights(same, torch.ones(num, dtype=torch.bool)).any()
    assert augmentation_weights(torch.zeros(3), ~known).tolist() == [0, 0, 0]
    found = augmentation_weights(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
    assert found.tolist() == [0.0, 1.0, 0.0]


def test_the_control_gives_every_image_one_half_from_the_second_epoch_on() -> None:
    method = conformance.built("bcl_i", "weights=constant")
    assert isinstance(method, BCLI)
    assert not method.random_operations().weight.any()
    method(conformance.views())
    method.on_epoch_end(0)
    assert method.random_operations().weight.unique().tolist() == [0.5]


@pytest.mark.parametrize(("name", "number", "lowest"), [("bcl_i", 1, 10.0), ("bcl_d", 2, 5.0)])
def test_the_published_arms_ask_for_the_published_operations(
    name: str, number: int, lowest: float
) -> None:
    asked = conformance.built(name).random_operations()
    assert asked is not None
    assert (asked.number, asked.lowest_strength) == (number, lowest)


@pytest.mark.journeys
def test_the_first_epoch_is_simclrs_bit_for_bit_and_the_second_is_not(tmp_path: Path) -> None:
    found, plain = (
        pretrain(conformance.run_config(name, "method.projection_dim=8"), tmp_path / name).metrics()
        for name in ("bcl_i", "simclr")
    )
    assert found[0]["loss"] == plain[0]["loss"]
    assert found[1]["loss"] != plain[1]["loss"]
    assert [line["loss_memory_spread"] > 0 for line in found] == [True] * 3


def test_a_network_is_in_the_state_once() -> None:
    method = BCL(SimCLR(torch.nn.Linear(2, 2)), 3)
    assert sorted(method.state_dict()) == [
        "base.network.bias",
        "base.network.weight",
        "loss_memory",
        "weight",
    ]
    assert method.network is method.base.network


def test_operations_that_cannot_be_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = BCL.random_operations
    twice = lambda self: ask(self)._replace(weight=self.weight + 2)  # noqa: E731
    monkeypatch.setattr(BCL, "random_operations", twice)
    with pytest.raises(ConfigError, match=r"BCLI\.random_operations must .* weights up to 2"):
        pretrain(conformance.run_config("bcl_i"), tmp_path / "x")
