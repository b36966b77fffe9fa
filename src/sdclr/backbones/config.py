"""The network that turns an image into a feature, as settings. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from sdclr.backbones.table import OUR_RESNETS, row_of
from sdclr.config import Section

WeightsMatch = Literal["exact", "partial", "order"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalisation(Section):
    """The numbers that are subtracted from the input's channels and that these are divided by; one for each channel."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Normalisation:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std need a number for each channel, got {len(self.mean)} and {len(self.std)}."
            )
        return self

    @property
    def channels(self) -> int:
        """The number of channels of the images that it is for."""
        return len(self.mean)

    def is_like(self, other: Normalisation) -> bool:
        """Whether both are the same up to rounding to float32."""
        if self.channels != other.channels:
            return False
        pairs = zip(self.mean + self.std, other.mean + other.std, strict=True)
        return all(math.isclose(mine, theirs, rel_tol=1e-6) for mine, theirs in pairs)


IMAGENET = Normalisation(mean=IMAGENET_MEAN, std=IMAGENET_STD)


def no_normalisation(channels: int = 3) -> Normalisation:
    """A normalisation that leaves images unchanged."""
    return Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)


class BackboneConfig(Section):
    """The network f that turns an image into a feature; it normalises its input itself."""

    name: str = "resnet18"
    """resnet10, resnet18, resnet34, resnet50, torchvision:<name>, timm:<name>, a registered name or module:Name, or
    custom (from Python only)."""
    width: Annotated[int, Field(ge=1, le=16_384)] = 64
    """Channels of the first stage of our ResNets; 64 is the usual network."""
    stem: Literal["small", "large"] = "small"
    """Our ResNets: small = 3x3 stride 1 without max-pool (CIFAR); large = 7x7 stride 2 with max-pool (ImageNet)."""
    pretrained: bool = False
    """Start from ImageNet weights of torchvision or timm instead of fresh ones; downloads them once."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments for the constructor of a torchvision, timm or registered network, e.g. {"depth": 6}. A
    network that is built for one image size gets views.size automatically."""
    normalisation: Literal["auto", "imagenet", "none"] | Normalisation = "auto"
    """How images in [0, 1] are normalised: auto (as for the weights that the run starts from, else imagenet; other than
    3 channels by the mean and std of a sample of the images), imagenet, none (for a network that normalises its input
    itself), or {"mean": [...], "std": [...]} with a number for each channel."""

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our ResNets, which have a width and a stem."""
        return self.name in OUR_RESNETS


def unset_value(field: str) -> Any:
    """The value of a field of BackboneConfig that is not set."""
    # the argument is for pydantic 2.10; newer ones need it for other defaults only
    return BackboneConfig.model_fields[field].get_default(
        call_default_factory=True, validated_data={}
    )


def settings_without_effect(name: str) -> dict[str, str]:
    """Fields of BackboneConfig that the network of this name does not use -> the error for setting one."""
    ours = "backbone.{} applies to our ResNets only; leave it out for {}."
    theirs = "backbone.{} applies to torchvision: and timm: networks only, not to {}."
    row = row_of(name)
    # an unknown name raises its own error
    used = row.settings if row is not None else frozenset({"width", "stem"})
    unused = {"width": ours, "stem": ours, "options": theirs}
    if "options" in used:
        unused["width"] = f"{ours} backbone.options takes its own keywords."
    return {
        field: words.format(field, name) for field, words in unused.items() if field not in used
    }
