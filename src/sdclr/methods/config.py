"""The methods' settings: the name, and what can be chosen for each. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from sdclr.config import Fraction, OneOf, ProperFraction, Section
from sdclr.outside import Table

Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]


class MethodConfig(Section):
    """Base of every method's settings. A method gives ``name`` a Literal type and a default.

    >>> class MineConfig(MethodConfig):
    ...     name: Literal["mine"] = "mine"
    ...     temperature: float = 0.2
    >>> MineConfig(temperature=0.5).to_dict()
    {'name': 'mine', 'temperature': 0.5}
    """

    name: str

    def as_resolved(self, resolved: Mapping[str, Any]) -> Self:
        """The settings with each ``auto`` as the run has resolved it; ``resolved``: the method's facts."""
        return self


class ContrastiveConfig(MethodConfig):
    """Shared settings of methods that contrast projections."""

    temperature: Temperature = 0.2
    """Divides the cosine similarities."""
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 2
    """Layers of the projection head: the reference uses 2 for SimCLR and 3 for SDCLR."""
    projection_dim: Annotated[int, Field(ge=2, le=2**20)] = 128
    """Size D of a projection."""


Passes = Literal["joint", "separate"]
LARGEST_GAMMA = 100.0
"""The largest exponent of the focal weight."""


class OneNetworkConfig(ContrastiveConfig):
    """Shared settings of methods that send both views through one network."""

    passes: Passes = "joint"
    """joint: one forward pass of both views, batch norms see 2B images; separate: one pass for each
    view, batch norms see B images, as in each branch of SDCLR."""


class SimCLRConfig(OneNetworkConfig):
    """The baseline: one network, two views."""

    name: Literal["simclr"] = "simclr"


def stale_problem(norms: str, dropout: float) -> str | None:
    """Why a competitor that is a copy without gradient does not fit these settings; None if it does."""
    if norms != "shared":
        return (
            f"stale=true needs norms=shared, got norms={norms}: without a gradient, norms of the competitor's own "
            "would never be trained."
        )
    return "stale=true and dropout are two controls; choose one of them." if dropout else None


class SDCLRConfig(ContrastiveConfig):
    """A network contrasted with its own pruned self."""

    name: Literal["sdclr"] = "sdclr"
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 3
    """Layers of the projection head: the reference uses 2 for SimCLR and 3 for SDCLR."""
    prune_ratio: ProperFraction = 0.9
    """Share of the prunable weights removed in the competitor."""
    norms: Literal["own", "own_all", "shared"] = "own"
    """own: the competitor has its own batch norms; own_all: layer and group norms too; shared: none."""
    random_share: Fraction = 0.0
    """Share of the prunable weights removed at random instead of by magnitude; at most prune_ratio."""
    prunable: Literal["auto", "conv", "conv+linear"] = "conv"
    """Which of the backbone's layers may be pruned; the projector never is. auto: convolutions if they contain at least
    half of the backbone's weights, otherwise the linear layers too."""
    dropout: ProperFraction = 0.0
    """Share of the outputs of each prunable layer that the competitor drops, drawn anew at every step; with
    prune_ratio=0 its only damage."""
    stale: bool = False
    """The competitor is a pruned copy of the network from the start of the epoch, and gets no gradient; needs
    norms=shared. A control: others published this arm as SDCLR."""

    @model_validator(mode="after")
    def _random_share_fits(self) -> SDCLRConfig:
        if self.random_share > self.prune_ratio:
            raise ValueError(
                f"random_share ({self.random_share}) must not exceed prune_ratio ({self.prune_ratio})."
            )
        return self

    @model_validator(mode="after")
    def _stale_copy_is_no_more_than_that(self) -> SDCLRConfig:
        if self.stale and (problem := stale_problem(self.norms, self.dropout)):
            raise ValueError(problem)
        return self

    def as_resolved(self, resolved: Mapping[str, Any]) -> Self:
        before = resolved.get("prunable")
        if self.prunable != "auto" or before is None:
            return self
        return self.model_copy(update={"prunable": before})


class FocalConfig(OneNetworkConfig):
    """SimCLR with a focal weight: images that are already distinguished weigh less."""

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0, le=LARGEST_GAMMA)] = 2.0
    """Exponent of (1 - p), p the softmax probability of the positive; 0 is SimCLR, otherwise at least 1."""

    @model_validator(mode="after")
    def _has_a_gradient(self) -> FocalConfig:
        if 0 < self.gamma < 1:
            raise ValueError(
                f"gamma must be 0 or at least 1, got {self.gamma}: between them a gradient is infinite."
            )
        return self


class TemperatureScheduleConfig(MethodConfig):
    """SimCLR whose temperature rises and falls with the epochs."""

    name: Literal["temperature_schedule"] = "temperature_schedule"
    lowest: Temperature = 0.1
    """Temperature in the middle of a period: single images are distinguished."""
    highest: Temperature = 1.0
    """Temperature at the end of a period: groups of images are distinguished."""
    period_share: Annotated[float, Field(gt=0, le=1e4)] = 0.2
    """One period, as a share of the run's epochs: the paper's 400 of 2000."""
    period_epochs: Annotated[float, Field(gt=0, le=1e7)] | None = None
    """One period in epochs, instead of period_share."""
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 2
    """Layers of the projection head."""
    projection_dim: Annotated[int, Field(ge=2, le=2**20)] = 128
    """Size D of a projection."""
    passes: Passes = "joint"
    """joint: one forward pass of both views, batch norms see 2B images; separate: one pass for each
    view, batch norms see B images."""

    @model_validator(mode="after")
    def _is_a_range(self) -> TemperatureScheduleConfig:
        if self.lowest > self.highest:
            raise ValueError(f"lowest ({self.lowest}) must not exceed highest ({self.highest}).")
        return self


class MoCoConfig(ContrastiveConfig):
    """A momentum copy provides keys, and a queue of them the negatives."""

    name: Literal["moco"] = "moco"
    key_momentum: Fraction = 0.999
    """Share of its weights that the key network keeps at every step."""
    queue_size: Annotated[int, Field(ge=1, le=2**24)] = 4096
    """Keys in the queue: the paper has 65,536 for ImageNet's 1.28 million images."""


class VICRegConfig(MethodConfig):
    """No negatives: two views agree, variances stay, covariances vanish."""

    name: Literal["vicreg"] = "vicreg"
    invariance: Annotated[float, Field(ge=0, le=1e6)] = 25.0
    """Weight of the distance between the two views."""
    variance: Annotated[float, Field(ge=0, le=1e6)] = 25.0
    """Weight of the shortfall of each dimension's standard deviation below 1."""
    covariance: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Weight of the covariances between dimensions."""
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 3
    """Layers of the projection head, which has no final norm."""
    projection_dim: Annotated[int, Field(ge=2, le=2**20)] = 2048
    """Size D of a projection: the paper has 8192."""
    passes: Passes = "separate"
    """joint: one forward pass of both views, batch norms see 2B images; separate: one pass for each
    view, batch norms see B images, as in the authors' code."""


class _BCLSettings(MethodConfig):
    """What BCL adds to its base's settings."""

    memory_keep: ProperFraction = 0.97
    """Share of an image's average loss that is kept when the image is seen again."""
    weights: Literal["loss", "constant"] = "loss"
    """loss: the higher an image's average loss, the more augmentation; constant: 1/2 for all, a control with as much
    augmentation on average."""
    num_operations: Annotated[int, Field(ge=1, le=15)] = 1
    """Operations of RandAugment drawn for each view."""
    lowest_strength: Annotated[float, Field(ge=0, le=30)] = 10.0
    """Strength of an operation at weight 0; at weight 1 it is 30. With several operations a part of that, drawn for
    each image."""

    def added_settings(self) -> dict[str, Any]:
        """The settings that are not the base method's."""
        names = {"weights", "num_operations", "lowest_strength"}
        return {"keep": self.memory_keep, **self.model_dump(include=names)}


class BCLIConfig(SimCLRConfig, _BCLSettings):
    """BCL on SimCLR: stronger augmentation for images with a high loss."""

    name: Literal["bcl_i"] = "bcl_i"  # type: ignore[assignment]


class BCLDConfig(SDCLRConfig, _BCLSettings):
    """BCL on SDCLR: stronger augmentation for images with a high loss."""

    name: Literal["bcl_d"] = "bcl_d"  # type: ignore[assignment]
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 2
    """Layers of the projection head: 2 in the authors' code."""
    num_operations: Annotated[int, Field(ge=1, le=15)] = 2
    """Operations of RandAugment drawn for each view."""
    lowest_strength: Annotated[float, Field(ge=0, le=30)] = 5.0
    """Strength of an operation at weight 0; at weight 1 it is 30. With several operations a part of that, drawn for
    each image."""


class LoTaRConfig(OneNetworkConfig):
    """SimCLR whose images are weighted by the distance between their two projections."""

    name: Literal["lotar"] = "lotar"
    sign: Literal[1, -1] = 1
    """1: distant pairs weigh more (the published formula); -1: less (later code of its authors)."""
    passes: Passes = "separate"
    """joint: one forward pass of both views, batch norms see 2B images; separate: one pass for each
    view, batch norms see B images, as in the authors' code."""


class ForeignMethodConfig(MethodConfig):
    """Settings of a method that is unknown here: they can be shown and stored, but not used for training."""

    is_foreign = True
    model_config = ConfigDict(extra="allow")


def _methods() -> Table[Any]:
    from sdclr.methods.table import METHODS  # its rows contain the sections of this module

    return METHODS


class AroundConfig(MethodConfig):
    """Shared settings of methods that add something to another one."""

    base: Annotated[MethodConfig, OneOf("method", _methods, ForeignMethodConfig)] = SimCLRConfig()
    """The method to extend, with all its settings: any that contrasts two projections."""

    def as_resolved(self, resolved: Mapping[str, Any]) -> Self:
        return self.model_copy(update={"base": self.base.as_resolved(resolved)})


class ClusterBalancedConfig(AroundConfig):
    """Images are drawn so that clusters of their features come equally often."""

    name: Literal["cluster_balanced"] = "cluster_balanced"
    clusters: tuple[Annotated[int, Field(ge=1, le=10**6)], ...] = (100, 10)
    """Numbers of clusters, from clusters of images to the coarsest, which are clusters of clusters."""
    refresh_every_epochs: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Epochs from one clustering of the run's own projections to the next; a tenth of the run by default."""
    features: str | None = None
    """A .npy file of features [N, D] in the order of the training images, to cluster once instead."""

    @model_validator(mode="after")
    def _clusters_once_or_again(self) -> ClusterBalancedConfig:
        if self.features is not None and self.refresh_every_epochs is not None:
            raise ValueError(
                "given features are clustered once: leave refresh_every_epochs or features out."
            )
        if not self.clusters or list(self.clusters) != sorted(set(self.clusters), reverse=True):
            raise ValueError(
                f"clusters must become fewer from level to level, got {list(self.clusters)}."
            )
        return self


class GHConfig(AroundConfig):
    """Soft labels over a fixed simplex of directions, balanced by how many images are nearest to each."""

    name: Literal["gh"] = "gh"
    variant: Literal["cifar", "imagenet"] = "cifar"
    """The published form: on CIFAR, or on ImageNet-LT and Places-LT; docs/method.md describes the differences."""
    num_directions: Annotated[int, Field(ge=2, le=2**16)] = 100
    """Directions K, at most the projection's size."""
    warmup_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the run's epochs before the loss starts: .5 on CIFAR, .8 on ImageNet-LT."""
    ramp_epochs: Annotated[int, Field(ge=1, le=10**6)] = 10
    """Epochs in which the loss's weight rises from 0 to 1: 10 on CIFAR, 30 on ImageNet-LT."""
    rebuild_every_epochs: Annotated[int, Field(ge=1, le=10**6)] = 20
    """Epochs between two computations of the prior."""

    @property
    def earliest_warmup(self) -> int:
        """Epochs needed before there is a prior."""
        return 2 if self.variant == "imagenet" else 1
