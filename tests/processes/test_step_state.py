"""What steps add up: the loss, whether it stayed finite, and when a training ends because somebody asked."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sdclr.processes.step_state import StepState
from sdclr.processes.world import World

CPU = torch.device("cpu")


class _Two:
    """A second process whose losses, and whether it was asked to stop, are given."""

    def __init__(self, loss: float, not_finite: float, asked: float) -> None:
        self.theirs = torch.tensor([loss, not_finite, asked], dtype=torch.float64)

    def all_reduce(self, ours: Tensor) -> Tensor:
        return ours + self.theirs


def test_one_that_is_alone_stops_at_once_and_never_forgets_a_loss_that_was_not_finite() -> None:
    state = StepState.begin(CPU)
    state.add(torch.tensor([1.0, 2.0]), None)
    state.add(torch.tensor([4.0, float("nan")]), None)
    assert not state.finite
    state.add(torch.tensor([1.0]), None)
    assert not state.finite, "no later step moves the weights"
    assert not state.is_to_stop(None)
    state.stop.signal_name = "SIGTERM"
    assert state.is_to_stop(None)


def test_several_add_up_and_stop_together_a_step_late() -> None:
    state = StepState.begin(CPU)
    calm, asking = (cast(World, _Two(10.0, 0.0, asked)) for asked in (0.0, 1.0))
    state.add(torch.tensor([1.0, 2.0]), calm)
    assert float(state.loss_sum) == 13
    state.add(torch.tensor([1.0]), asking)
    assert not state.is_to_stop(asking), "the other processes do not know of it yet"
    assert state.is_to_stop(asking, now=True)
    state.add(torch.tensor([1.0]), calm)
    assert state.is_to_stop(calm)
    assert state.finite
    state.add(torch.tensor([1.0]), cast(World, _Two(0.0, 1.0, 0.0)))
    assert not state.finite, "one process is enough"
