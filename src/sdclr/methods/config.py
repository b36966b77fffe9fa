"""The methods as settings: name, and what each lets one choose. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sdclr.config import Fraction, ProperFraction, Section


class SimCLRConfig(Section):
    """The baseline: one network, two views."""

    name: Literal["simclr"] = "simclr"
    temperature: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.2
    """Divides the cosine similarities."""
    projector_layers: Annotated[int, Field(ge=2, le=3)] = 2
    """Layers of the projection head: the reference uses 2 for SimCLR and 3 for SDCLR."""
    projection_dim: Annotated[int, Field(ge=2, le=2**20)] = 128
    """Size D of a projection."""


class SDCLRConfig(SimCLRConfig):
    """A network contrasted with its own pruned self."""

    name: Literal["sdclr"] = "sdclr"  # type: ignore[assignment]
    prune_ratio: ProperFraction = 0.9
    """Share of the prunable weights removed in the competitor."""
    norms: Literal["own", "own_all", "shared"] = "own"
    """own: the competitor has its own batch norms; own_all: layer and group norms too; shared: none."""
    random_share: Fraction = 0.0
    """Share of the prunable weights removed at random instead of by magnitude; at most prune_ratio."""
    prunable: Literal["auto", "conv", "conv+linear"] = "conv"
    """Which of the backbone's layers may be pruned; the projector never is. auto: convolutions where they hold at least
    half of the backbone's weights, else the linear layers too."""

    @model_validator(mode="after")
    def _random_share_fits(self) -> SDCLRConfig:
        if self.random_share > self.prune_ratio:
            raise ValueError(f"random_share ({self.random_share}) must not exceed prune_ratio ({self.prune_ratio}).")
        return self


METHODS: dict[str, type[SimCLRConfig]] = {"simclr": SimCLRConfig, "sdclr": SDCLRConfig}
"""method.name -> its settings."""

MethodConfig = Annotated[SimCLRConfig | SDCLRConfig, Field(discriminator="name")]
