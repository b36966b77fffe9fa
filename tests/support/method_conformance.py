"""What every entry of METHODS must hold, as functions of its name: each raises where it does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from killing import state_hash
from pretend_cuda import moved, pretended_cuda
from sdclr import PretrainConfig, Run, pretrain, recipe
from sdclr.batch import Views
from sdclr.config import parse_assignment
from sdclr.errors import Preempted
from sdclr.methods import METHODS, Method, Parts, build_method
from sdclr.methods.table import named_method
from sdclr.presentation.progress import NoProgress
from several_processes import codes, started

IMAGES = 7
TINY = [
    "backbone.width=2",
    "views.size=8",
    "batch_size=200",
    "epochs=3",
    "checkpoint_every_epochs=1",
    "health_every_epochs=0",
]


def run_config(name: str, *overrides: str) -> PretrainConfig:
    """Three epochs of three steps each."""
    return recipe("digits_simclr").with_overrides([*TINY, f"method.name={name}", *overrides])


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def built(name: str, *overrides: str) -> Method:
    """In float64, its first epoch begun; overrides are of its own settings, as ``prune_ratio=0``."""
    own = dict(map(parse_assignment, overrides))
    config = METHODS[name].config.parse(own)
    parts = Parts(backbone(), 8, num_images=IMAGES, num_epochs=3, seed=0)
    method = build_method(config, parts).double().train()
    method.on_epoch_start(0)
    return method


def views() -> Views:
    a, b = torch.rand(
        2, IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return Views(a, b, torch.arange(IMAGES))


def loss_is_per_image(name: str, *overrides: str) -> None:
    """[B], finite; it goes with its image when the batch is in another order, and differs from image to image."""
    loss = built(name, *overrides)(views())
    assert loss.shape == (IMAGES,)
    assert loss.isfinite().all()
    assert len(loss.unique()) > 1, "every image has the same loss: is it a mean?"
    order = torch.arange(IMAGES - 1, -1, -1)
    turned = built(name, *overrides)(Views(*(part[order] for part in views()[:3])))
    torch.testing.assert_close(turned, loss[order])


def gradients_reach_every_parameter(name: str, *overrides: str) -> None:
    method = built(name, *overrides)
    method(views()).mean().backward()
    without = [
        key
        for key, weight in method.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    # a norm takes the mean out: a bias before it has no influence
    assert [key for key in without if not key.endswith("bias")] == []


def everything_is_made_on_the_device(name: str) -> None:
    """An epoch of one step of a method that has been moved to CUDA, without a device: nothing is computed."""
    method = built(name)
    with pretended_cuda() as cuda, torch.no_grad():
        moved(method, cuda)
        method.on_epoch_start(1)
        a, b = torch.rand(2, IMAGES, 3, 8, 8, dtype=torch.float64, device=cuda)
        loss = method(Views(a, b, torch.arange(IMAGES, device=cuda)))
        method.on_epoch_end(1)
        assert loss.device.type == "cuda"


class SignalAt(NoProgress):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if amount and self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def a_stopped_run_ends_like_a_whole_one(name: str, folder: Path, *overrides: str) -> None:
    """Stopped inside its second epoch; bit for bit."""
    config = run_config(name, *overrides)
    whole = pretrain(config, folder / "whole")
    with pytest.raises(Preempted):
        pretrain(config, folder / "stopped", progress=SignalAt(5))
    pretrain(config, folder / "stopped")
    assert state_hash(folder / "stopped") == state_hash(whole.folder)


def two_processes_are_one(name: str, folder: Path, *overrides: str) -> None:
    """fp64; the last batch of an epoch, 405 - 2 * 151 = 103 images, cannot be halved."""
    config = run_config(name, "precision=fp64", "batch_size=151", "epochs=2", *overrides)
    expected = _final(pretrain(config, folder / "one"))
    assert codes(started(2, training(name, config, folder / "two"))) == [0, 0]
    found = _final(Run(folder / "two"))
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-8, atol=1e-9, msg=key)
    losses = [[line["loss"] for line in Run(folder / each).metrics()] for each in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-9)


def training(name: str, config: PretrainConfig, folder: Path) -> Callable[[int], object]:
    """What a process does that was not told of methods from outside."""
    origin = METHODS[name].origin or name
    return lambda _: named_method(origin) and pretrain(config, folder)


def _final(run: Run) -> dict[str, Tensor]:
    newest = run.checkpoints.newest()
    assert newest is not None
    return newest.tensors


def one_compilation_over_three_epochs(name: str, *overrides: str) -> None:
    torch._dynamo.reset()
    method, counter = built(name, *overrides), CompileCounter()
    compiled = torch.compile(method, backend=counter, fullgraph=True)
    for epoch in range(3):
        method.on_epoch_start(epoch)
        compiled(views()).mean().backward()
        method.on_epoch_end(epoch)
    assert counter.frame_count == 1


def settings_survive_yaml(name: str, folder: Path) -> None:
    config = run_config(name)
    path = folder / "config.yaml"
    path.write_text(config.to_yaml())
    assert PretrainConfig.from_yaml(path) == config
    assert type(PretrainConfig.from_yaml(path).method) is METHODS[name].config
