"""Room: images [B, 3, S, S] in [0, 1] -> features [B, F]. Any network; knows no method and no data set."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import timm
import torchvision
from pydantic import Field, PositiveFloat
from torch import nn

from sdclr.backbones.activation_checkpointing import checkpoint_activations
from sdclr.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, measure_feature_dim
from sdclr.backbones.pretrained import check_pretrained, load_pretrained, trained_with
from sdclr.backbones.resnet import DEPTHS, ResNet, contiguous_tails
from sdclr.config import Section
from sdclr.errors import ConfigError

__all__ = [
    "IMAGENET",
    "Backbone",
    "BackboneConfig",
    "Normalisation",
    "build_backbone",
    "checkpoint_activations",
    "contiguous_tails",
    "input_constants",
    "load_pretrained",
    "measure_feature_dim",
    "offers_pretrained",
]


class Normalisation(Section):
    """What is subtracted from the input's channels, and what they are divided by."""

    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]

    def is_like(self, other: Normalisation) -> bool:
        """Whether both are the same but for rounding to float32."""
        pairs = zip(self.mean + self.std, other.mean + other.std, strict=True)
        return all(math.isclose(mine, theirs, rel_tol=1e-6) for mine, theirs in pairs)


IMAGENET = Normalisation(mean=IMAGENET_MEAN, std=IMAGENET_STD)
NO_NORMALISATION = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class BackboneConfig(Section):
    """The network f that turns an image into a feature; it normalises its input itself."""

    name: str = "resnet18"
    """resnet10, resnet18, resnet34, resnet50, torchvision:<name>, timm:<name>, or custom (from Python only)."""
    width: Annotated[int, Field(ge=1, le=16_384)] = 64
    """Channels of the first stage of our ResNets; 64 is the usual network."""
    stem: Literal["small", "large"] = "small"
    """Our ResNets: small = 3x3 stride 1 without max-pool (CIFAR); large = 7x7 stride 2 with max-pool (ImageNet)."""
    pretrained: bool = False
    """Start from ImageNet weights of torchvision or timm instead of fresh ones; downloads them once."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keywords for the constructor of a torchvision or timm network, e.g. {"depth": 6}. A network that is built
    for one image size gets views.size by itself."""
    normalisation: Literal["auto", "imagenet", "none"] | Normalisation = "auto"
    """How images in [0, 1] are normalised: auto (as the weights that the run starts from were trained, else imagenet),
    imagenet, none (for a network that normalises its input itself), or {"mean": [...], "std": [...]}."""

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our ResNets, which have a width and a stem."""
        return self.name in DEPTHS


def settings_without_effect(name: str) -> dict[str, str]:
    """Fields of BackboneConfig that the network of this name does not use -> an error for a person who gives one."""
    ours = "backbone.{} applies to our ResNets only; leave it out for {}."
    theirs = "backbone.{} applies to torchvision: and timm: networks only, not to {}."
    if name == "custom":
        unused = {"width": ours, "stem": ours, "options": theirs}
    elif ":" in name:
        unused = {"width": f"{ours} backbone.options takes its own keywords.", "stem": ours}
    else:
        unused = {"options": theirs}
    return {field: words.format(field, name) for field, words in unused.items()}


def input_constants(config: BackboneConfig) -> Normalisation:
    """The mean and std that a fresh backbone of these settings has, before any weights are loaded."""
    if isinstance(config.normalisation, Normalisation):
        return config.normalisation
    if config.normalisation == "none":
        return NO_NORMALISATION
    if config.normalisation == "auto" and config.pretrained and "transform_input" not in config.options:
        constants = trained_with(config.name)
        if constants is not None:
            return Normalisation(mean=_three(constants[0]), std=_three(constants[1]))
    return IMAGENET


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network named in the config, headless, with fresh weights, also where pretrained ones are to follow.

    Raises ConfigError for unknown names, and where nobody offers the pretrained weights that are asked for.
    """
    kind, _, name = config.name.rpartition(":")
    for field, words in settings_without_effect(config.name).items():
        unset = BackboneConfig.model_fields[field].get_default(call_default_factory=True)
        if getattr(config, field) != unset:
            raise ConfigError(words)
    if config.pretrained:
        check_pretrained(config.name, config.width, config.stem)
    if kind == "timm":
        network = _timm_network(name, config.options)
    elif kind == "torchvision":
        network = _torchvision_network(name, config.options)
    elif kind or name not in DEPTHS:
        raise ConfigError(
            f"backbone.name must be one of {', '.join(DEPTHS)}, torchvision:<name> or timm:<name>, "
            f"got {config.name!r}.{_did_you_mean(name, list(DEPTHS))}"
        )
    else:
        network = ResNet(name, config.width, config.stem)
    constants = input_constants(config)
    return Backbone(network, constants.mean, constants.std)


def offers_pretrained(config: BackboneConfig) -> bool:
    """Whether there are ImageNet weights for this network; nothing is downloaded."""
    try:
        check_pretrained(config.name, config.width, config.stem)
    except ConfigError:
        return False
    return True


def _timm_network(name: str, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}.{_did_you_mean(name, timm.list_models())}")
    if loading := [key for key in options if key.startswith(("checkpoint", "pretrained")) or key == "cache_dir"]:
        raise ConfigError(f"backbone.options.{loading[0]} loads weights unchecked; use weights or backbone.pretrained.")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"timm:{name} does not take backbone.options {options}: {error}") from error


def _torchvision_network(name: str, options: dict[str, Any]) -> nn.Module:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ConfigError(f"torchvision has no classification model {name!r}.{_did_you_mean(name, names)}")
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True} | options  # their defaults return tuples, and warn
    try:
        if name == "maxvit_t" and options:
            network = torchvision.models.MaxVit(**_MAXVIT_T | options)
        else:
            network = torchvision.models.get_model(name, weights=None, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"torchvision:{name} does not take backbone.options {options}: {error}") from error
    if name.startswith("squeezenet"):  # its classifier is a convolution and the pooling behind it
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return network
    for attribute in ("fc", "head", "heads", "classifier"):
        head = getattr(network, attribute, None)
        if isinstance(head, nn.Linear):
            setattr(network, attribute, nn.Identity())
            return network
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            head[-1] = nn.Identity()
            return network
    raise ConfigError(f"torchvision:{name} has no linear classifier to remove; use its timm: counterpart.")


_MAXVIT_T: dict[str, Any] = {
    "input_size": (224, 224),
    "stem_channels": 64,
    "partition_size": 7,
    "block_channels": [64, 128, 256, 512],
    "block_layers": [2, 2, 5, 2],
    "head_dim": 32,
    "stochastic_depth_prob": 0.2,
}
"""torchvision's maxvit_t; its own function does not let the partition size be changed, which other images need."""


def _did_you_mean(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""
