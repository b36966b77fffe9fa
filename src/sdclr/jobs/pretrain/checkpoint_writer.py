"""Write a run's checkpoints in the step loop itself or, with a fast device, in a thread that receives a copy.

The loop then waits for the copy, not for the disk. All submitted checkpoints are written before the process ends, and
disk errors are raised in the loop as if the loop had written.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from sdclr.storage.checkpoint import Checkpoint, CheckpointFolder

BESIDE_DEVICES: tuple[str, ...] = ("cuda",)
"""Devices with a writer thread. CPU steps are so slow that saving takes a thousandth of the time: no thread needed."""


class CheckpointWriter:
    """The writer of one run. At most one write is in flight: the next one, and leaving the context, wait for it."""

    def __init__(self, device: torch.device) -> None:
        self._thread = (
            ThreadPoolExecutor(1, "checkpoints") if device.type in BESIDE_DEVICES else None
        )
        self._in_flight: Future[None] | None = None
        # reused between saves: allocating memory costs more than the copy
        self._copies: dict[str, Tensor] = {}

    def write(
        self, folder: CheckpointFolder, checkpoint: Checkpoint, *, read_back: bool = False
    ) -> None:
        """Write ``checkpoint``, or pass a copy of it to the thread; with ``read_back`` it is on the disk on return."""
        self.wait()
        if self._thread is None or read_back:
            folder.save(checkpoint, read_back=read_back)
            return
        if self._copies.keys() != checkpoint.tensors.keys():
            self._copies = {
                name: torch.empty_like(one, device="cpu")
                for name, one in checkpoint.tensors.items()
            }
        for name, tensor in checkpoint.tensors.items():
            self._copies[name].copy_(tensor.detach())
        self._in_flight = self._thread.submit(
            folder.save, replace(checkpoint, tensors=self._copies)
        )

    def check(self) -> None:
        """Raise the error of the write in flight, if it has failed; does not wait for it."""
        if self._in_flight is not None and self._in_flight.done():
            self.wait()

    def wait(self) -> None:
        """Wait until every submitted checkpoint is on the disk. Raises what CheckpointFolder.save does."""
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        if error is None:  # otherwise that error is raised, and the previous checkpoint is the last
            self.wait()
