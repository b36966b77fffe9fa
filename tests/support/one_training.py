"""A training outside of any run folder, step by step; and what happens between the steps of one inside."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
import torch
from torch import Tensor

from sdclr.batch import Views
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.step import require_finite, train_step
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.method import Method
from sdclr.presentation.progress import NoProgress
from sdclr.settings import PretrainConfig

Act = Callable[[Training, TrainingState], object]


class OneTraining:
    """Built, in train mode, its first epoch begun unless ``begin=False``."""

    def __init__(self, config: PretrainConfig, *, begin: bool = True) -> None:
        self.training = build(config, show=NoProgress())
        self.state = TrainingState.begin(self.training.device)
        if begin:
            self.method.train()
            self.method.on_epoch_start(0)

    @property
    def method(self) -> Method:
        return self.training.method

    def views(self, epoch: int) -> Generator[Views, None, None]:
        return self.training.views(epoch)

    def step(self, views: Views) -> None:
        train_step(self.training, self.state, views)

    def require_finite(self) -> None:
        require_finite(self.training, self.state)

    def moving_state(self) -> dict[str, Tensor]:
        """Copies of every weight and of the optimiser's state."""
        state = {name: weight.detach().clone() for name, weight in self.method.named_parameters()}
        for position, values in self.training.optimizer.state_dict()["state"].items():
            state |= {
                f"{position}.{name}": torch.as_tensor(value).clone()
                for name, value in values.items()
            }
        return state


def around_steps(act: Act | None = None, then: Act | None = None) -> Callable[..., None]:
    """``train_step`` with something done before it, and after it."""
    taken = step_module.train_step

    def step(training: Training, state: TrainingState, views: Views) -> None:
        if act is not None:
            act(training, state)
        taken(training, state, views)
        if then is not None:
            then(training, state)

    return step


def patch_steps(patch: pytest.MonkeyPatch, act: Act | None = None, then: Act | None = None) -> None:
    """Until ``patch`` is undone, every run does so around its steps."""
    patch.setattr(step_module, "train_step", around_steps(act, then))


def interrupting(at: int) -> Act:
    """Ends a run, as Ctrl-C does, before the step after ``at``."""

    def act(training: Training, state: TrainingState) -> None:
        if state.step == at:
            raise KeyboardInterrupt

    return act
