"""Resumed equals uninterrupted, in every bit of the state, wherever and however often a run is stopped."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from killing import SignalAt, config, state_hash
from one_training import Act, OneTraining
from sdclr import PretrainConfig, pretrain
from sdclr.errors import Preempted
from sdclr.jobs.pretrain import folder as folder_module
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.storage.checkpoint import Checkpoint

pytestmark = pytest.mark.journeys

STEPS = 9


def with_optimizer(name: str) -> PretrainConfig:
    values = {
        "optimizer.name": name,
        "optimizer.learning_rate": 0.01,
        "checkpoint_every_minutes": 10,
        "health_every_epochs": 1
        if name == "adamw"
        else 0,  # a look at the weights every epoch; once is enough
    }
    return config().with_values(values)


@pytest.fixture(
    scope="module", params=["sgd", "adamw", pytest.param("lars", marks=pytest.mark.slow)]
)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PretrainConfig, str]:
    """A config and the hash of its uninterrupted run."""
    settings = with_optimizer(request.param)
    run = pretrain(settings, tmp_path_factory.mktemp("whole") / "x")
    return settings, state_hash(run.folder)


def test_a_run_stopped_after_every_single_step_ends_the_same(
    tmp_path: Path, whole: tuple[PretrainConfig, str]
) -> None:
    settings, expected = whole
    for _ in range(STEPS - 1):  # one chain: each sitting takes one step
        with pytest.raises(Preempted):
            pretrain(settings, tmp_path / "x", progress=SignalAt(1))
    pretrain(settings, tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.usefixtures("writing_thread")
@pytest.mark.parametrize("steps", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_whose_checkpoints_a_thread_writes_ends_the_same(
    tmp_path: Path, whole: tuple[PretrainConfig, str], steps: int
) -> None:
    settings, expected = whole
    settings = settings.with_values({"checkpoint_every_minutes": 1e-9})
    for _ in range(0, STEPS - steps, steps):
        with pytest.raises(Preempted):
            pretrain(settings, tmp_path / "x", progress=SignalAt(steps))
    pretrain(settings, tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_stopped_once_ends_the_same(
    tmp_path: Path, whole: tuple[PretrainConfig, str], step: int
) -> None:
    settings, expected = whole
    with pytest.raises(Preempted):
        pretrain(settings, tmp_path / "x", progress=SignalAt(step))
    pretrain(settings, tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


def test_scrambled_global_random_states_change_nothing(
    tmp_path: Path, whole: tuple[PretrainConfig, str]
) -> None:
    settings, expected = whole
    with pytest.raises(Preempted):
        pretrain(settings, tmp_path / "x", progress=SignalAt(5))
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    pretrain(settings, tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


def _tensor(name: str) -> Act:
    """Perturb one tensor of the method's state."""

    def perturb(training: Training, _: TrainingState) -> None:
        tensor = training.method.state_dict()[name]
        with torch.no_grad():
            tensor.copy_(
                ~tensor
                if tensor.dtype == torch.bool
                else tensor + (tensor.abs() * 0.01 + 0.01).to(tensor)
            )
            if not tensor.is_floating_point() and tensor.dtype != torch.bool:
                tensor.add_(1)

    return perturb


def _forget(name: str) -> Act:
    """One tensor of the method's state as if it had never been saved: fresh."""

    def forget(training: Training, _: TrainingState) -> None:
        fresh = OneTraining(training.config, begin=False).method.state_dict()[name]
        training.method.state_dict()[name].copy_(fresh)

    return forget


def _momentum(position: int, factor: float) -> Act:
    def scale(training: Training, _: TrainingState) -> None:
        weights = training.optimizer.param_groups[0]["params"]
        training.optimizer.state[weights[position]]["momentum_buffer"].mul_(factor)

    return scale


def _step(_: Training, state: TrainingState) -> None:
    state.step += 1


def _loss_sum(_: Training, state: TrainingState) -> None:
    state.loss_sum.zero_()


def _no_masks(training: Training, _: TrainingState) -> None:
    training.method.on_epoch_start(0)  # masks of weights that are not yet the epoch's


def _swapped_norms(training: Training, _: TrainingState) -> None:
    state = training.method.state_dict()
    for name in [name for name in state if name.startswith("network.") and "running_mean" in name]:
        twin = state[name.replace("network.", "competitor.twin.", 1)]
        mine = state[name].clone()
        state[name].copy_(twin)
        twin.copy_(mine)


_NET, _TWIN = "network.backbone.net.", "competitor.twin.backbone.net."
ITEMS: dict[str, Act] = {
    "a convolution": _tensor(_NET + "layer2.0.conv1.weight"),
    "the target's norm weight": _tensor(_NET + "bn1.weight"),
    "the target's norm bias": _tensor(_NET + "bn1.bias"),
    "the target's running mean": _tensor(_NET + "bn1.running_mean"),
    "the target's running variance": _tensor(_NET + "layer4.0.bn2.running_var"),
    "the target's count of batches": _tensor(_NET + "bn1.num_batches_tracked"),
    "the competitor's norm weight": _tensor(_TWIN + "bn1.weight"),
    "the competitor's running mean": _tensor(_TWIN + "bn1.running_mean"),
    "the competitor's running variance, dropped": _forget(_TWIN + "layer3.0.bn1.running_var"),
    "the competitor's running mean, dropped": _forget(_TWIN + "bn1.running_mean"),
    "a mask": _tensor(_TWIN + "layer4.0.conv2.parametrizations.weight.0.mask"),
    "a mask, dropped": _forget(_TWIN + "layer3.0.conv1.parametrizations.weight.0.mask"),
    "the epoch of the masks": _no_masks,
    "the projector's weight": _tensor("network.projector.0.weight"),
    "momentum of the first weight, dropped": _momentum(0, 0.0),
    "momentum of the last weight": _momentum(-1, 1.01),
    "the position": _step,
    "the loss of the epoch so far": _loss_sum,
    "whose norms are whose": _swapped_norms,
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run stopped inside its second epoch, and the hash of the uninterrupted one."""
    folder = tmp_path_factory.mktemp("stopped")
    settings = with_optimizer("sgd")
    whole = pretrain(settings, folder / "whole")
    with pytest.raises(Preempted):
        pretrain(settings, folder / "cut", progress=SignalAt(5))
    return folder / "cut", state_hash(whole.folder)


def ending(stopped: Path, to: Path, monkeypatch: pytest.MonkeyPatch, change: Act) -> str:
    """The end of the stopped run when ``change`` happens to what was loaded."""
    shutil.copytree(stopped, to)
    restore = folder_module.restore

    def restore_and_change(
        training: Training, state: TrainingState, checkpoint: Checkpoint, where: str
    ) -> None:
        restore(training, state, checkpoint, where)
        change(training, state)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "restore", restore_and_change)
        pretrain(with_optimizer("sgd"), to)
    return state_hash(to)


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.filterwarnings(
    "ignore:.*metrics.jsonl holds"
)  # a run at another position skips an epoch's line
def test_every_part_of_the_state_matters(
    tmp_path: Path, stopped: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, item: str
) -> None:
    assert ending(stopped[0], tmp_path / "x", monkeypatch, ITEMS[item]) != stopped[1]


def test_without_a_change_the_end_is_the_same(
    tmp_path: Path, stopped: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(ITEMS) >= 15
    assert ending(stopped[0], tmp_path / "x", monkeypatch, lambda *_: None) == stopped[1]
