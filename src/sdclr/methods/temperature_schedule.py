"""TS: SimCLR with a temperature that follows a cosine of the epoch (Kukleva et al., ICLR 2023).

A low temperature distinguishes single images, which helps rare classes; a high one distinguishes groups.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from sdclr.batch import Views
from sdclr.methods.config import Passes, TemperatureScheduleConfig
from sdclr.methods.contrastive import ContrastiveMethod, checked_passes, in_passes
from sdclr.methods.method import Parts
from sdclr.methods.nt_xent import nt_xent


def cosine_temperature(epoch: int, *, period: float, lowest: float, highest: float) -> float:
    """The temperature of a 0-based epoch; ``period`` in epochs. The cosine counts epochs from 1, as the reference does.

    >>> cosine_temperature(199, period=400, lowest=0.1, highest=1.0)
    0.1
    """
    return lowest + (highest - lowest) / 2 * (1 + math.cos(2 * math.pi * (epoch + 1) / period))


class TemperatureSchedule(ContrastiveMethod):
    """SimCLR whose temperature changes from epoch to epoch. ``period`` in epochs."""

    temperature: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        period: float,
        lowest: float = 0.1,
        highest: float = 1.0,
        passes: Passes = "joint",
    ) -> None:
        super().__init__()
        self.network, self.passes = network, checked_passes(passes)
        self.period, self.lowest, self.highest = period, lowest, highest
        self.register_buffer("temperature", torch.tensor(highest))

    @classmethod
    def from_config(cls, config: TemperatureScheduleConfig, parts: Parts) -> Self:
        period = config.period_epochs or config.period_share * parts.num_epochs
        network = parts.network(config.projector_layers, config.projection_dim)
        return cls(
            network,
            period=period,
            lowest=config.lowest,
            highest=config.highest,
            passes=config.passes,
        )

    def describe(self, config: TemperatureScheduleConfig) -> list[str]:
        lines = super().describe(config)
        if self.period < 2:
            lines.append(
                f"TS: its period is {self.period:g} epochs, in which the temperature hardly leaves {self.highest:g}; "
                "raise epochs, or give method.period_epochs"
            )
        return lines

    def on_epoch_start(self, epoch: int) -> None:
        temperature = cosine_temperature(
            epoch, period=self.period, lowest=self.lowest, highest=self.highest
        )
        self.temperature.fill_(temperature)

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return in_passes(self.network, views, self.passes)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return nt_xent(z_a, z_b, self.temperature, views.share)

    def measurements(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature}
