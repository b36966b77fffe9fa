"""A preview of a run from its first few steps; nothing is written."""

from __future__ import annotations

import math
import os
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.batch import Views
from sdclr.compute.device import describe_device, explain_out_of_memory
from sdclr.compute.memory import peak_process_memory
from sdclr.jobs.pretrain.build import build, memory_advice
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.settings import PretrainConfig

STEPS = 3
"""Measured steps, after the warm-up."""


@dataclass(frozen=True)
class Preview:
    """A run's size, and how its views look."""

    num_images: int
    num_skipped: int
    """Files that cannot be decoded."""
    decoded_bytes: int
    """Size of all images as 8-bit RGB."""
    steps_per_epoch: int
    total_steps: int
    seconds_per_step: float
    peak_memory_bytes: int
    """Of the device; on a CPU, of the whole process, or 0 if the system does not report it."""
    load: float
    """Cores kept busy by other work before the measurement (mean of a minute); nan if the system does not report it."""
    device: str
    views: Views
    """The first images of the first batch, as the network would see them; at most 16."""
    stills: Tensor
    """uint8 [n, C, S, S], the same images without augmentation; n is at most 16."""

    @property
    def seconds(self) -> float:
        """Estimated time of the whole run."""
        return self.seconds_per_step * self.total_steps


def preview(
    config: PretrainConfig, *, download: bool = False, progress: AnyProgress | None = None
) -> Preview:
    """Build everything that pretrain would, run a few steps, and measure. Raises what pretrain raises."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    with explain_out_of_memory(memory_advice(config)):
        training = build(config, download=download, show=progress or NoProgress())
        state = TrainingState.begin(training.device)
        if training.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(training.device)
        training.method.train()
        training.method.on_epoch_start(0)
        times, first = [time.perf_counter()], None
        # in steps: CUDA graphs are recorded in the second one
        warm_up = 2 if training.compile == "cuda-graphs" else 1
        with closing(training.views(0)) as batches:
            for views in islice(batches, STEPS + warm_up):
                first = first or Views(
                    views.a[:16].cpu(), views.b[:16].cpu(), views.index[:16].cpu()
                )
                train_step(training, state, views)
                if training.device.type == "cuda":
                    torch.cuda.synchronize(training.device)
                times.append(time.perf_counter())
    assert first is not None
    counted = times[min(warm_up, len(times) - 2) :]  # at least one step, even if it is the only one
    return Preview(
        num_images=len(training.images),
        num_skipped=len(training.image_facts["skipped"]) if training.image_facts else 0,
        decoded_bytes=training.images.decoded_bytes(),
        steps_per_epoch=training.steps_per_epoch,
        total_steps=training.total_steps,
        seconds_per_step=(counted[-1] - counted[0]) / (len(counted) - 1),
        peak_memory_bytes=_peak_memory(training.device),
        load=load,
        device=describe_device(training.device),
        views=first,
        stills=torch.cat(
            [
                batch.cpu()
                for batch in training.images.at(first.index.numpy()).stills(config.views.size)
            ]
        ),
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_process_memory()
