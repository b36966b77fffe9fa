"""What a run consists of once its settings are read: the fixed parts, and the few numbers that change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdclr.backbones import Backbone, BackboneConfig
from sdclr.batch import STRONGEST, RandomOperations, Views
from sdclr.compute.compiling import Compiled
from sdclr.compute.device_choices import Precision
from sdclr.compute.late_answer import LateAnswer
from sdclr.compute.optim import learning_rate
from sdclr.data import Data, Images, epoch_draws
from sdclr.data.views.torch_draws import Escapes
from sdclr.errors import ConfigError
from sdclr.methods import Method
from sdclr.processes.step_state import StepState
from sdclr.processes.world import World
from sdclr.settings import PretrainConfig

VIEWS_CUT_BY_HOST = "threads or memory"
VIEWS_CUT_BY_DEVICE = "device, out of a store"


@dataclass(frozen=True)
class Training:
    """The parts of one run, wired together; none of these attributes is reassigned during training."""

    config: PretrainConfig
    world: World
    device: torch.device
    precision: Precision
    compile: str | bool
    """The requested mode; ``compiled.how`` is the one in use."""
    compiles_views: bool
    """Whether view generation is compiled, too, on a CUDA device."""
    memory_format: torch.memory_format
    data: Data
    images: Images
    """The training images."""
    image_facts: dict[str, Any] | None
    """Content of images.json; None for images in memory."""
    steps_per_epoch: int
    warmup_epochs: float
    backbone: Backbone
    architecture: BackboneConfig
    """Adapted to views.size."""
    feature_dim: int
    method: Method
    compiled: Compiled | None
    loss_per_image: Callable[[Views], Tensor]
    """The method, or a wrapper that compiles it or averages its gradients over processes."""
    optimizer: torch.optim.Optimizer
    resolved: dict[str, Any]
    """How the run has resolved the settings that leave something open."""
    views_cut_by: str
    """Host or device; the views differ only by rounding."""
    escapes: Escapes = field(default_factory=Escapes)
    """Random draws of the user's own views that cannot be repeated."""

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def sharing(self) -> World | None:
        """The processes that take each step together; None for a single one."""
        return self.world if self.world.several else None

    def with_loss(self, loss_per_image: Callable[[Views], Tensor]) -> Training:
        """The same parts with another loss."""
        return dataclasses.replace(self, loss_per_image=loss_per_image)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, from 1: a function of the step alone."""
        optimizer = self.config.optimizer
        return learning_rate(
            step,
            peak=optimizer.learning_rate,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_epochs * self.steps_per_epoch,
            final=optimizer.final_learning_rate,
        )

    def batch_images(self, number: int) -> int:
        """Images in batch ``number`` of an epoch, over all processes."""
        return min(self.config.batch_size, len(self.images) - number * self.config.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """Positions [B] of the images in the batches of one epoch, from number ``first`` on."""
        return (draws % len(self.images) for draws in self._draws(epoch, first))

    def _draws(self, epoch: int, first: int) -> Iterator[Tensor]:
        """Like :meth:`batches`, but numbers of draws: an image that is drawn again gets other views."""
        return epoch_draws(
            len(self.images),
            self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            first=first,
            weights=self._per_image(self.method.sampling_weights(), "sampling_weights"),
        )

    def _per_image(self, values: Tensor | None, what: str) -> Tensor | None:
        """Per-image values from the method, float64 [N] on the host; raises ConfigError for anything else."""
        if values is None:
            return None
        wanted = (
            f"{type(self.method).__name__}.{what} must return {len(self.images)} finite numbers of at least 0, one for "
            "each training image"
        )
        if not isinstance(values, Tensor):
            raise ConfigError(f"{wanted}; got {type(values).__name__}, which is not a tensor.")
        values = values.detach().cpu().double()
        if values.shape != (len(self.images),):
            raise ConfigError(f"{wanted}; got {list(values.shape)}.")
        if (odd := ~values.isfinite() | (values < 0)).any():
            first = int(odd.nonzero()[0])
            raise ConfigError(f"{wanted}; got {float(values[first]):g} for image {first}.")
        return values

    def operations(self) -> RandomOperations | None:
        """The operations that the method requests, weights on the host; raises ConfigError if they are not possible."""
        requested = self.method.random_operations()
        if requested is None:
            return None
        if self.images.channels != 3:
            raise ConfigError(
                f"{type(self.method).__name__} asks for operations of RandAugment, which are defined for 3 channels, "
                f"and data.channels is {self.images.channels}. Choose another method.name."
            )
        weight = self._per_image(requested.weight, "random_operations")
        assert weight is not None
        if (
            requested.number < 1
            or not 0 <= requested.lowest_strength <= STRONGEST
            or (weight > 1).any()
        ):
            raise ConfigError(
                f"{type(self.method).__name__}.random_operations must ask for at least 1 operation, weights in [0, 1] "
                f"and a lowest strength in [0, {STRONGEST:g}]; got {requested.number}, weights up to "
                f"{float(weight.max()):g} and {requested.lowest_strength:g}."
            )
        return requested._replace(weight=weight)

    def views(self, epoch: int, first: int = 0) -> Generator[Views, None, None]:
        """The batches of one epoch, from number ``first`` on; with several processes, this one's shards."""
        config, world = self.config, self.world
        shares = map(world.shard, self._draws(epoch, first))
        strength = self._per_image(self.method.view_strength(), "view_strength")
        plain = config.views.spec()
        own = plain.own and dataclasses.replace(plain.own, escapes=self.escapes)
        spec = dataclasses.replace(
            plain,
            own=own,
            strength=strength,
            operations=self.operations(),
            compile_views=self.compiles_views,
        )
        for number, views in enumerate(
            self.images.views(shares, spec, seed=config.seed, epoch=epoch), start=first
        ):
            yield views._replace(share=world.share(self.batch_images(number)))


@dataclass
class TrainingState(StepState):
    """What changes from step to step, besides weights, norms, masks and the optimiser's moments."""

    unread: tuple[LateAnswer, int] | None = None
    """The unread result of the last step: ``finite`` after it, and its number."""

    def mean_loss(self, training: Training) -> float:
        """The mean loss of the epoch that has just ended."""
        return self.loss_sum.item() / len(training.images)
