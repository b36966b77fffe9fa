"""An answer of a device that the host reads a step later. Not for what the host needs at once."""

from __future__ import annotations

import torch
from torch import Tensor


class LateAnswer:
    """A boolean of the device on its way to the host: asked for now, read a step later, while the device is busy."""

    def __init__(self, answer: Tensor) -> None:
        # elsewhere than on CUDA nothing says when a copy that nobody waits for has arrived
        self._value = answer.to("cpu", non_blocking=answer.is_cuda, copy=True)
        self._arrived = torch.cuda.Event() if answer.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(answer.device))

    def read(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
