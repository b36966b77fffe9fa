"""What every training keeps from step to step: the loss so far, whether it stayed finite, and requests to stop.

All of it stays on the device and is read a step later, so the host never waits here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from sdclr.compute.device import widest_float
from sdclr.compute.late_answer import LateAnswer
from sdclr.processes.signals import StopRequest
from sdclr.processes.world import World


@dataclass
class StepState:
    """The state of one training. Processes that share its steps pass their ``world``; a single process passes None."""

    loss_sum: Tensor
    """float64 scalar on the device (float32 where it has no float64): over the images of the epoch so far."""
    finite: Tensor
    """bool scalar on the device: whether every loss up to now was finite; once false, no step changes a weight."""
    step: int = 0
    """Steps done."""
    votes: tuple[LateAnswer | None, LateAnswer | None] = (None, None)
    """Whether any process was asked to stop by the last step, and by the one before."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Whether this process was asked to stop."""

    @classmethod
    def begin(cls, device: torch.device) -> Self:
        """The state before the first step."""
        return cls(
            loss_sum=torch.zeros((), dtype=widest_float(device), device=device),
            finite=torch.ones((), dtype=torch.bool, device=device),
        )

    def add(self, losses: Tensor, world: World | None) -> None:
        """Add the losses [B] of a step's images, over all processes of ``world``, which also vote on stopping."""
        loss_sum, finite = losses.sum().to(self.loss_sum), losses.isfinite().all()
        if world is not None:
            stop_requested = torch.full_like(loss_sum, self.stop.signal_name is not None)
            loss_sum, num_not_finite, num_requesting = world.all_reduce(
                torch.stack([loss_sum, (~finite).double(), stop_requested])
            )
            finite = num_not_finite == 0
            self.votes = LateAnswer(num_requesting > 0), self.votes[0]
        self.finite &= finite
        self.loss_sum += loss_sum

    def is_to_stop(self, world: World | None, *, now: bool = False) -> bool:
        """Whether to save and end here; several processes agree on it, a step late unless ``now``."""
        if world is None:
            return self.stop.signal_name is not None
        latest, before = self.votes
        vote = latest if now else before
        return vote is not None and vote.read()
