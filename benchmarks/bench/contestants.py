"""Everything that is timed, by name: our own jobs as `sdclr pretrain` builds them, the reference, other libraries.

A name is what is done and, in brackets, how: ``sdclr_step[bf16,compiled]``; ``cuda-graphs`` are compiled, too. B images
a batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.machine import matmul
from bench.others import kornia_views, lightly_step
from bench.reference import (
    QUEUED,
    PillowPairs,
    ReferenceStep,
    boolean_mask_loss,
    drain,
    endless_batches,
    host_sort,
)
from bench.rounds import Action, timed
from sdclr.backbones import BackboneConfig, build_backbone, measure_feature_dim
from sdclr.batch import Views
from sdclr.compute.compiling import Compiled, CompiledAs
from sdclr.compute.data_waits import DataWaits
from sdclr.compute.device_choices import Precision
from sdclr.data import DataConfig, ViewsConfig, make_views
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods import SDCLRConfig, SimCLRConfig
from sdclr.methods.nt_xent import nt_xent
from sdclr.methods.projector import Network, projector
from sdclr.methods.sdclr import SDCLR
from sdclr.presentation.progress import NoProgress
from sdclr.settings import PretrainConfig

STEPS_PER_EPOCH = 22
"""CIFAR-10-LT at batch 512."""
PROJECTION_DIM = 128
VIEW_BATCHES = 4
END_TO_END_SECONDS = 5.0
"""After which enough steps with their data are timed on CUDA."""
IN_WORDS: dict[CompiledAs, str] = {
    False: "uncompiled",
    True: "compiled",
    "cuda-graphs": "cuda-graphs",
}


def is_step(name: str) -> bool:
    """Whether the action of this name is a whole training step, with or without its data."""
    return any(word in name for word in ("_step", "_with_views", "_end_to_end"))


def variant(precision: str, compiled: CompiledAs) -> str:
    return f"{precision},{IN_WORDS[compiled]}" if compiled else precision


def warm_ups(name: str) -> int:
    """Runs of a step that compile or record something, to be left out."""
    return 2 if "cuda-graphs" in name else 1 if "compiled" in name else 0


def config_of(backbone: BackboneConfig, size: int, **settings: Any) -> PretrainConfig:
    """A run of SDCLR on images in a file; ``settings`` replace or add."""
    file = str(settings.pop("file", "images.npz"))
    usual: dict[str, Any] = {
        "recipe": "bench",
        "data": DataConfig(name="arrays", path=file, subset="all"),
        "views": ViewsConfig(size=size),
        "backbone": backbone,
        "method": SDCLRConfig(),
    }
    return PretrainConfig(**usual | settings)


@dataclass(frozen=True)
class Workload:
    """The same work for all."""

    backbone: BackboneConfig
    size: int
    batch: int
    device: torch.device
    file: Path
    """Where :meth:`write` puts the images, for jobs to read."""

    def pixels(self) -> Tensor:
        """uint8 [N, 3, S, S], an epoch of noise without its sharpest detail."""
        side, generator = self.size + 4, torch.Generator().manual_seed(0)
        noise = torch.randint(
            0, 256, (STEPS_PER_EPOCH * self.batch, 3, side, side), generator=generator
        )
        return torch.cat([F.avg_pool2d(part.float(), 5, 1).byte() for part in noise.split(512)])

    def write(self, pixels: Tensor) -> None:
        np.savez(self.file, images=pixels.permute(0, 2, 3, 1).numpy())

    def training(
        self, method: str, precision: Precision, compiled: CompiledAs, **settings: Any
    ) -> Training:
        """What `sdclr pretrain` would run on these images; both methods have the 3-layer head.

        ``settings``: of the method, further ones.
        """
        head = SDCLRConfig if method == "sdclr" else SimCLRConfig
        config = config_of(
            self.backbone,
            self.size,
            file=self.file,
            method=head(projector_layers=3, projection_dim=PROJECTION_DIM, **settings),
            batch_size=self.batch,
            device=str(self.device),
            precision=precision,
            compile=compiled,
        )
        training = build(config, show=NoProgress())
        training.method.train().on_epoch_start(0)
        return training


class Contestants:
    """The actions by name, filled in by the ``add_`` methods."""

    def __init__(self, work: Workload) -> None:
        self.work, self.device = work, work.device
        self.actions: dict[str, Action] = {}
        self.waiting_shares: dict[str, list[float]] = {}
        """Of the end-to-end actions, one entry a call."""
        self.not_installed: list[str] = []
        self._compiled: dict[str, tuple[CompiledAs, Compiled]] = {}
        self.pixels = work.pixels()
        work.write(self.pixels)
        a, b = torch.rand(2, work.batch, 3, work.size, work.size, device=self.device)
        self.ready = Views(a, b, torch.arange(work.batch, device=self.device))

    def add_steps(self, precision: Precision, compiled: CompiledAs, *, with_data: bool) -> Training:
        """A step of both methods on ready-made views; ``with_data``: SDCLR's also with its views, and returned."""
        how = variant(precision, compiled)
        for method in ("simclr", "sdclr"):
            training = self.work.training(method, precision, compiled)
            layout = training.memory_format
            a, b = (view.contiguous(memory_format=layout) for view in self.ready[:2])
            state = TrainingState.begin(self.device)
            step = partial(train_step, training, state, Views(a, b, self.ready.index))
            begin = partial(training.method.on_epoch_start, 0)
            self.actions[f"{method}_step[{how}]"] = self._step(step, begin)
            if isinstance(training.loss_per_image, Compiled):
                self._compiled[f"{method}_step[{how}]"] = compiled, training.loss_per_image
        if with_data:
            self._add_data(training, state, how)
        self.actions[f"matmul[{precision}]"] = matmul(self.device, precision)
        return training

    def fallen_back(self) -> dict[str, str]:
        """Which steps did not run as their names say, once they have run, and how they did."""
        steps = self._compiled.items()
        return {
            name: f"ran {IN_WORDS[step.how]}, see the warning"
            for name, (how, step) in steps
            if step.how != how
        }

    def _add_data(self, training: Training, state: TrainingState, how: str) -> None:
        spec = training.config.views.spec()

        def endless() -> Iterator[Views]:
            for epoch in itertools.count():
                yield from training.views(epoch)

        def step() -> None:
            if self.device.type == "cuda":  # drawn for many batches at once, as in training
                views = next(batches)
            else:
                views = make_views(self.pixels, self.ready.index, spec, seed=0, epoch=0)
            train_step(training, state, views)

        batches = endless()
        begin = partial(training.method.on_epoch_start, 0)
        self.actions[f"sdclr_with_views[{how}]"] = self._step(step, begin)
        self.actions[f"sdclr_end_to_end[{how}]"] = self._end_to_end(
            f"sdclr_end_to_end[{how}]", endless(), partial(train_step, training, state)
        )
        assert isinstance(training.method, SDCLR)
        self.actions["mask_refresh"] = timed(training.method.competitor.refresh_masks, self.device)

    def add_reference(self) -> None:
        work = self.work
        torch.manual_seed(0)
        backbone = build_backbone(work.backbone)
        head = projector(measure_feature_dim(backbone, work.size), PROJECTION_DIM, 3)
        method = SDCLR(Network(backbone, head), prune_ratio=0.9, spared=("projector",))
        step = ReferenceStep(method, self.device)
        a, b = (view.contiguous() for view in self.ready[:2])
        batches = endless_batches(PillowPairs(self.pixels, work.size), work.batch, self.device)
        self.actions["reference_step"] = self._step(lambda: step((a, b)))
        self.actions["reference_end_to_end"] = self._end_to_end(
            "reference_end_to_end", batches, step, ahead=QUEUED
        )
        self.actions["host_sort"] = timed(lambda: host_sort(method.competitor), self.device)

    def add_views(self) -> None:
        """Two views of VIEW_BATCHES batches in a row, on one thread of the host: what one core makes."""
        cpu, size = torch.device("cpu"), self.work.size
        batch, index = self.pixels[: self.work.batch], torch.arange(self.work.batch)
        pairs, spec = PillowPairs(batch, size), ViewsConfig(size=size).spec()
        kornia = kornia_views(batch, size)
        works: dict[str, Callable[[], object] | None] = {
            "views": lambda: [
                make_views(batch, index, spec, seed=0, epoch=epoch) for epoch in range(VIEW_BATCHES)
            ],
            "pil_views": lambda: [
                pairs[row] for _ in range(VIEW_BATCHES) for row in range(len(pairs))
            ],
            "kornia_views": kornia and (lambda: [kornia() for _ in range(VIEW_BATCHES)]),
        }
        for name, work in works.items():
            if work is None:
                self.not_installed.append("kornia")
            else:
                self.actions[name] = timed(on_one_thread(work), cpu)

    def add_losses(self) -> None:
        a, b = (
            torch.randn(self.work.batch, PROJECTION_DIM, device=self.device).requires_grad_()
            for _ in range(2)
        )
        self.actions["loss"] = timed(lambda: nt_xent(a, b, 0.2).mean().backward(), self.device)
        self.actions["reference_loss"] = timed(
            lambda: boolean_mask_loss(a, b).backward(), self.device
        )

    def add_lightly(self, precision: Precision) -> None:
        step = lightly_step(
            build_backbone(self.work.backbone), self.ready.a, self.ready.b, precision
        )
        if step is None:
            self.not_installed.append("lightly")
        else:
            self.actions[f"lightly_step[{precision}]"] = timed(step, self.device)

    def _step(
        self, step: Callable[[], object], begin: Callable[[], object] | None = None
    ) -> Action:
        """Seconds of one step; on CUDA with its share of what begins an epoch."""
        if self.device.type != "cuda":
            return timed(step, self.device)
        return mean_of_epoch(step, begin or (lambda: None), self.device)

    def _end_to_end(
        self, name: str, batches: Iterator[object], step: Callable[..., object], ahead: int = 0
    ) -> Action:
        """Seconds of one step with its data; workers have made the next ``ahead`` batches already.

        On a CPU a step outlasts the making of its batch, so that every step pays for one. On CUDA the batches made
        ahead are used up first; what follows is as many again at least, and three epochs' worth unless that lasts too
        long.
        """
        shares = self.waiting_shares.setdefault(name, [])

        def action() -> float:
            cuda = self.device.type == "cuda"
            if cuda:
                drain(batches, step, ahead)
            waits, num = DataWaits(self.device), 0
            counted = waits.of(batches)

            def steps() -> None:
                nonlocal num
                begun = time.perf_counter()
                while True:
                    drain(counted, step, 1)
                    num += 1
                    spent = time.perf_counter() - begun
                    enough = num >= 3 * STEPS_PER_EPOCH or spent > END_TO_END_SECONDS
                    if not cuda or (num >= ahead and enough):
                        break

            seconds = timed(steps, self.device)()
            shares.append(waits.seconds() / seconds)
            return seconds / num

        return action


def mean_of_epoch(
    step: Callable[[], object], begin: Callable[[], object], device: torch.device
) -> Action:
    """Seconds of one of an epoch's steps in a row: the host is as far ahead of the device as in training.

    A step alone between two synchronisations would also be charged what the host takes to queue its first kernels, and
    ``begin`` what the device does not wait for while it has steps to do.
    """

    def epoch() -> None:
        begin()
        for _ in range(STEPS_PER_EPOCH):
            step()

    whole = timed(epoch, device)
    return lambda: whole() / STEPS_PER_EPOCH


def on_one_thread(work: Callable[[], object]) -> Callable[[], None]:
    def alone() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            work()
        finally:
            torch.set_num_threads(threads)

    return alone
