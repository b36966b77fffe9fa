"""MoCo against lightly's loss with its memory bank, and the state that its copy and its queue are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import method_conformance as conformance
from sdclr.batch import Views
from sdclr.methods.moco import MoCo


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "moco.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def test_losses_gradients_and_the_queue_are_lightlys(values: dict[str, Tensor]) -> None:
    """Five batches of 4 keys through a queue of 12."""
    method = MoCo(nn.Linear(6, 6), 6, temperature=0.2, queue_size=12).double()
    method.queue.copy_(values["queue_start"])
    close = {"rtol": 1e-12, "atol": 1e-13}
    for step, (query, key) in enumerate(zip(values["queries"], values["keys"], strict=True)):
        query = query.clone().requires_grad_()
        loss = method.losses(query, key, Views(query, key, torch.arange(4))).mean()
        loss.backward()
        torch.testing.assert_close(loss, values["loss"][step], **close)
        torch.testing.assert_close(query.grad, values["grad"][step], **close)
    torch.testing.assert_close(method.queue, values["queue_end"], **close)


@pytest.mark.parametrize("queue_size", [5, 3])
def test_the_queue_holds_the_latest_keys_whatever_the_size_of_a_batch(queue_size: int) -> None:
    method = MoCo(nn.Linear(2, 2), 2, queue_size=queue_size).double()
    angles = torch.arange(12, dtype=torch.float64) / 12
    keys = torch.stack([angles.cos(), angles.sin()], dim=1)
    for batch in keys.split(4):
        method.losses(batch, batch, Views(batch, batch, torch.arange(4)))
    found = sorted(torch.atan2(method.queue[:, 1], method.queue[:, 0]).tolist())
    np.testing.assert_allclose(found, angles[-queue_size:].tolist(), atol=1e-12)


def test_the_copy_follows_slowly_and_gets_no_gradient() -> None:
    method = conformance.built("moco", "key_momentum=0.75", "queue_size=8")
    assert isinstance(method, MoCo)
    assert not any(name.startswith("key_network") for name, _ in method.named_parameters())
    weight = method.network.get_parameter("projector.0.weight")
    own = method.key_network.get_buffer("copy.projector.0.weight")
    before = own.clone()
    with torch.no_grad():
        weight += 1
    method(conformance.views()).mean().backward()
    torch.testing.assert_close(own, 0.75 * before + 0.25 * weight.detach())


def test_in_eval_mode_neither_the_queue_nor_the_copy_moves() -> None:
    method = conformance.built("moco", "key_momentum=0.75", "queue_size=8").eval()
    with torch.no_grad():
        method.get_submodule("network").get_parameter("projector.0.weight").add_(1)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(conformance.views())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
