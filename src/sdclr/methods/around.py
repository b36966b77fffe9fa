"""Shared parts of methods that wrap another one: everything is delegated, except for what they add."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdclr.batch import RandomOperations, Views
from sdclr.errors import ConfigError
from sdclr.methods.build import build_method
from sdclr.methods.config import AroundConfig, MethodConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.method import Parts


class MethodAround(ContrastiveMethod):
    """A method that adds something to ``base``, a contrastive method of any kind.

    The network, the projections, the losses and the requests to the data are those of ``base``; a
    subclass overrides what it changes, and calls the base's where it adds to it.
    """

    def __init__(self, base: ContrastiveMethod) -> None:
        super().__init__()
        self.base = base
        self.per_image = tuple(f"base.{name}" for name in base.per_image)

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The base's network; stored here as well, it would be in a checkpoint twice."""
        return self.base.network

    def project(self, views: Views) -> tuple[Tensor, Tensor]:
        return self.base.project(views)

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        return self.base.losses(z_a, z_b, views)

    def on_epoch_start(self, epoch: int) -> None:
        self.base.on_epoch_start(epoch)

    def on_epoch_end(self, epoch: int) -> None:
        self.base.on_epoch_end(epoch)

    def view_strength(self) -> Tensor | None:
        return self.base.view_strength()

    def random_operations(self) -> RandomOperations | None:
        return self.base.random_operations()

    def sampling_weights(self) -> Tensor | None:
        return self.base.sampling_weights()

    def measurements(self) -> dict[str, Tensor]:
        return self.base.measurements()

    def facts(self) -> dict[str, Any]:
        return self.base.facts()

    def describe(self, config: Any) -> list[str]:
        return self.base.describe(getattr(config, "base", config))


def projection_dim_of(config: MethodConfig) -> int:
    """The size of a base's projections, from its settings or those of its own base."""
    while isinstance(config, AroundConfig):
        config = config.base
    found = getattr(config, "projection_dim", None)
    if not isinstance(found, int):
        raise ConfigError(
            f"method.base.name={config.name} has no setting projection_dim, the size of its projections. "
            "Give it one, or choose another base."
        )
    return found


def build_base(config: MethodConfig, parts: Parts) -> ContrastiveMethod:
    """Build the method to wrap. Raises ConfigError for one that does not provide projections."""
    base = build_method(config, parts)
    if not isinstance(base, ContrastiveMethod):
        raise ConfigError(
            f"method.base.name={config.name} does not say what the two projections of an image are. "
            "Make it a subclass of sdclr.methods.ContrastiveMethod, or choose another base."
        )
    return base
