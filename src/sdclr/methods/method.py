"""What a pre-training method is: views in, a loss per image out, and a hook at the start of an epoch."""

from __future__ import annotations

from torch import Tensor, nn

from sdclr.batch import Views


class Method(nn.Module):
    """Base of the methods. ``network`` is what is kept afterwards; everything else may be thrown away."""

    network: nn.Module

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of every epoch (0-based), and not again when a run resumes inside it."""

    def forward(self, views: Views) -> Tensor:
        """Loss per image [B]; its mean is minimised."""
        raise NotImplementedError

    def measurements(self) -> dict[str, Tensor]:
        """Scalars worth a line in the epoch's log; tensors stay on their device."""
        return {}
