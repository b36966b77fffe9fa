"""How rare classes are compensated in training, in closed form. N images, C classes, n_c training images of class c."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdclr.data.splits import Positions
from sdclr.jobs.finetune.config import Balance


class Balanced(NamedTuple):
    """How a loss is balanced; None for what is left unchanged."""

    loss_weights: Tensor | None
    """float64 [C], with mean 1 over the images."""
    sampling: Tensor | None
    """float64 [N], images are drawn in proportion to it."""
    log_shares: Tensor | None
    """float64 [C], added to the logits in training."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Balanced:
        """The same on ``device``, in ``dtype``, except ``sampling``: images are drawn on the CPU."""
        weights, shares = (
            None if one is None else one.to(dtype).to(device)  # a device may have no float64
            for one in (self.loss_weights, self.log_shares)
        )
        return Balanced(weights, self.sampling, shares)


def balanced(labels: Positions, num_classes: int, balance: Balance) -> Balanced:
    """weights: N / (C n_c), as scikit-learn's "balanced"; sampling: 1 / n_c; logits: log(n_c / N).

    >>> balanced(np.array([0, 0, 0, 1]), 2, "weights").loss_weights
    tensor([0.6667, 2.0000], dtype=torch.float64)
    """
    counts = torch.from_numpy(np.bincount(labels, minlength=num_classes)).double()
    if balance == "weights":
        return Balanced(len(labels) / (num_classes * counts), None, None)
    if balance == "sampling":
        return Balanced(None, (1 / counts)[torch.from_numpy(labels)], None)
    if balance == "logits":
        return Balanced(None, None, (counts / len(labels)).log())
    return Balanced(None, None, None)
