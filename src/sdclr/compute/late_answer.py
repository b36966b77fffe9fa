"""A device's answer that the host reads a step later. Not for answers that the host needs at once."""

from __future__ import annotations

import torch
from torch import Tensor


class LateAnswer:
    """A boolean on its way from the device to the host: requested now, read a step later, while the device is busy."""

    def __init__(self, answer: Tensor) -> None:
        # on devices other than CUDA there is no event for the arrival of an asynchronous copy
        self._value = answer.to("cpu", non_blocking=answer.is_cuda, copy=True)
        self._arrived = torch.cuda.Event() if answer.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(answer.device))

    def read(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
