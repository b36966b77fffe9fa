"""BCL, boosted contrastive learning (Zhou, Yao, Wang, Han, Zhang, ICML 2022): images that are
learned slowly, mostly rare ones, get stronger augmentation.

N training images, B images of this process's shard of a batch.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor

from sdclr.batch import RandomOperations, Views
from sdclr.methods.around import MethodAround
from sdclr.methods.config import BCLDConfig, BCLIConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.method import Parts
from sdclr.methods.sdclr import SDCLR
from sdclr.methods.simclr import SimCLR

_ROUNDING = 100
"""Memories are equal up to rounding if none is further from their mean than so many units in the last place of the
largest."""


def augmentation_weights(memory: Tensor, known: Tensor) -> Tensor:
    """w = 1/2 + (m - mean m) / (2 max |m - mean m|) in [0, 1] over the ``known`` images, [N].

    Its mean is 1/2, whatever the losses. Unknown images get 0, and so do all if the memories are equal up to rounding,
    which the formula leaves undefined.

    >>> memory = torch.tensor([1.0, 2.0, 6.0, 0.0])
    >>> known = torch.tensor([True, True, True, False])
    >>> [round(weight, 3) for weight in augmentation_weights(memory, known).tolist()]
    [0.167, 0.333, 1.0, 0.0]
    """
    num = known.sum().clamp(min=1)
    deviation = (memory - (memory * known).sum() / num) * known
    largest = deviation.abs().max()
    differ = largest > _ROUNDING * torch.finfo(memory.dtype).eps * (memory * known).abs().max()
    weights = 0.5 + deviation / (2 * torch.where(differ, largest, 1))
    return torch.where(known & differ, weights, 0).clamp(0, 1)


class BCL(MethodAround):
    """``base`` with operations of RandAugment, more and stronger ones for images with a higher loss.

    The memory of an image is its loss when it is first seen, then an average of its losses; weights
    are computed from all memories at the end of each epoch, and are 0 in the first one.
    ``weights``: ``loss``, or the control ``constant``: 1/2 for all from the second epoch on, as much
    augmentation on average. ``num_epochs``: of the run, if known.
    """

    loss_memory: Tensor
    """[N, 2]: average loss, and 1 if the image has been seen."""
    weight: Tensor
    """[N]: the augmentation weights of this epoch's views."""

    def __init__(
        self,
        base: ContrastiveMethod,
        num_images: int,
        *,
        keep: float = 0.97,
        weights: Literal["loss", "constant"] = "loss",
        num_operations: int = 1,
        lowest_strength: float = 10.0,
        num_epochs: int | None = None,
    ) -> None:
        super().__init__(base)
        self.is_too_short = num_epochs == 1  # the run ends before there are weights
        self.keep, self.weights = keep, weights
        self.num_operations, self.lowest_strength = num_operations, lowest_strength
        self.register_per_image("loss_memory", torch.zeros(num_images, 2))
        self.register_buffer("weight", torch.zeros(num_images))

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        losses = super().losses(z_a, z_b, views)
        average, known = self.loss_memory[views.index].unbind(1)
        now = losses.detach().to(average.dtype)
        average = torch.where(known > 0, self.keep * average + (1 - self.keep) * now, now)
        self.loss_memory[views.index] = torch.stack([average, torch.ones_like(average)], dim=1)
        return losses

    def on_epoch_end(self, epoch: int) -> None:
        super().on_epoch_end(epoch)
        if self.weights == "constant":
            self.weight.fill_(0.5)
        else:
            average, known = self.loss_memory.unbind(1)
            self.weight.copy_(augmentation_weights(average, known > 0))

    def describe(self, config: Any) -> list[str]:
        lines = super().describe(config)
        if self.is_too_short:
            lines.append(
                "BCL: its operations set in after an epoch, and the run has one: it trains as its base does; raise "
                "epochs"
            )
        return lines

    def random_operations(self) -> RandomOperations:
        return RandomOperations(self.weight, self.num_operations, self.lowest_strength)

    def measurements(self) -> dict[str, Tensor]:
        """How far the remembered losses of the images are apart: their standard deviation over their mean."""
        average = self.loss_memory[:, 0]
        spread = average.std(correction=0) / average.mean().clamp(min=1e-12)
        return {**super().measurements(), "loss_memory_spread": spread}


class BCLI(BCL):
    """BCL-I: BCL on SimCLR."""

    @classmethod
    def from_config(cls, config: BCLIConfig, parts: Parts) -> Self:
        network = parts.network(config.projector_layers, config.projection_dim)
        base = SimCLR(network, config.temperature, config.passes)
        added = config.added_settings()
        return cls(base, parts.num_images, num_epochs=parts.num_epochs, **added)


class BCLD(BCL):
    """BCL-D: BCL on SDCLR."""

    @classmethod
    def from_config(cls, config: BCLDConfig, parts: Parts) -> Self:
        base = SDCLR.from_config(config, parts)
        added = config.added_settings()
        return cls(base, parts.num_images, num_epochs=parts.num_epochs, **added)
