"""Whoever watches a training is told of every step and epoch, and cannot harm it."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from killing import state_hash
from one_training import interrupting, patch_steps
from sdclr import Observer, PretrainConfig, pretrain, recipe, resume
from sdclr.observers import EpochDone, StepDone, TrainingBegins

TINY = [
    "backbone.width=2",
    "views.size=8",
    "batch_size=200",
    "epochs=2",
    "health_every_epochs=0",
    "checkpoint_every_epochs=1",
]


def config() -> PretrainConfig:
    """Two epochs of three steps."""
    return recipe("digits_sdclr").with_overrides(TINY)


class Notes(Observer):
    def __init__(self) -> None:
        self.begins: list[TrainingBegins] = []
        self.steps: list[int] = []
        self.epochs: list[EpochDone] = []
        self.ends = 0

    def on_begin(self, begins: TrainingBegins) -> None:
        self.begins.append(begins)

    def on_step(self, done: StepDone) -> None:
        self.steps.append(done.step)

    def on_epoch(self, done: EpochDone) -> None:
        self.epochs.append(done)

    def on_end(self, done: EpochDone) -> None:
        self.ends += 1


def test_an_observer_hears_what_the_metrics_file_holds(tmp_path: Path) -> None:
    notes = Notes()
    run = pretrain(config(), tmp_path / "x", observers=[notes])
    assert notes.steps == [1, 2, 3, 4, 5, 6]
    assert [
        {"epoch": one.epoch, "step": one.step, **one.measured} for one in notes.epochs
    ] == run.metrics()
    (begins,) = notes.begins
    assert (begins.total_steps, begins.step, begins.num_epochs) == (6, 0, 2)
    assert begins.settings == config().to_dict()
    assert notes.ends == 1


def test_a_run_that_goes_on_begins_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    with monkeypatch.context() as patch:
        patch_steps(patch, interrupting(4))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config(), tmp_path / "x", observers=[notes])
    assert (notes.steps, notes.ends) == ([1, 2, 3, 4], 0)
    resume(tmp_path / "x", observers=[notes])
    assert [one.step for one in notes.begins] == [0, 3]
    assert notes.steps[4:] == [4, 5, 6]
    assert notes.ends == 1


@pytest.mark.parametrize(
    "hook",
    [
        "on_step",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("on_begin", "on_epoch", "on_end")),
    ],
)
def test_one_that_fails_is_left_out_with_a_warning_and_the_run_ends_the_same(
    tmp_path: Path, hook: str
) -> None:
    calls = []
    kind: type[BaseException] = asyncio.CancelledError if hook == "on_step" else ValueError

    def fail(_: Observer, told: object) -> None:
        calls.append(told)
        raise kind("no connection")

    failing = type("Failing", (Observer,), {hook: fail})()
    notes = Notes()
    with pytest.warns(
        UserWarning,
        match=f"Failing failed and no longer watches the run: {kind.__name__}: no connection",
    ):
        run = pretrain(config(), tmp_path / "x", observers=[failing, notes])
    assert len(calls) == 1
    assert notes.ends == 1
    assert state_hash(run.folder) == state_hash(pretrain(config(), tmp_path / "whole").folder)


class Meddles(Observer):
    """Changes, after the first epoch, what a training depends on, and may fail or exit besides."""

    def __init__(self, change: Callable[[EpochDone], object], then: BaseException | None) -> None:
        self.change, self.then = change, then

    def on_epoch(self, done: EpochDone) -> None:
        if done.epoch == 1:
            self.change(done)
            if self.then is not None:
                raise self.then


CHANGES: dict[str, Callable[[EpochDone], object]] = {
    "train or eval mode": lambda done: done.backbone.eval(),
    "requires_grad": lambda done: done.backbone.requires_grad_(False),
    "torch's grad mode": lambda done: torch.set_grad_enabled(False),
    "torch's default dtype": lambda done: torch.set_default_dtype(torch.float64),
    "the current folder": lambda done: os.chdir("/"),
}


@pytest.mark.parametrize("then", [None, RuntimeError("server down"), SystemExit(0)])
@pytest.mark.parametrize("what", CHANGES)
def test_what_an_observer_leaves_changed_is_set_back(
    what: str, then: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = state_hash(pretrain(config(), Path("alone")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = pretrain(config(), Path("watched"), observers=[Meddles(CHANGES[what], then)])
    said = [str(one.message) for one in caught]
    assert any(f"Meddles has changed {what}" in one for one in said)
    assert any("Meddles failed and no longer watches" in one for one in said) == (then is not None)
    assert state_hash(run) == expected
    assert Path.cwd() == tmp_path
