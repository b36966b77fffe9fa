"""When a checkpoint is due."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from one_training import OneTraining
from sdclr import recipe
from sdclr.jobs.pretrain import checkpoint_schedule
from sdclr.jobs.pretrain.checkpoint_schedule import CheckpointSchedule
from sdclr.jobs.pretrain.checkpoint_writer import CheckpointWriter

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("epochs", "seconds", "cost", "due"),
    [(10, 10, 0.19, True), (10, 10, 0.21, False), (9, 1e6, 0.1, False), (13, 99, 1, True)],
)
def test_ten_epochs_and_a_save_that_is_paid_off_make_the_next_one_due(
    monkeypatch: pytest.MonkeyPatch, epochs: int, seconds: float, cost: float, due: bool
) -> None:
    now = 1e7
    monkeypatch.setattr(checkpoint_schedule, "time", SimpleNamespace(monotonic=lambda: now))

    def schedule_after_the_epochs(every: int | None) -> CheckpointSchedule:
        one = OneTraining(recipe("digits_simclr").with_values({"checkpoint_every_epochs": every}))
        one.state.step = epochs * one.training.steps_per_epoch
        return CheckpointSchedule(one.training, one.state, CheckpointWriter(CPU))

    schedule = schedule_after_the_epochs(None)
    schedule.at_seconds, schedule.cost_seconds = now - seconds, cost
    assert schedule.due() is due
    often = schedule_after_the_epochs(3)
    often.cost_seconds = 1e9
    assert often.due() is (epochs % 3 == 0)
