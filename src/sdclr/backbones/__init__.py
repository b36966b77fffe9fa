"""Room: images [B, 3, S, S] in [0, 1] -> features [B, F]. Any network; knows no method and no data set."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import timm
import torchvision
from pydantic import Field
from torch import nn

from sdclr.backbones.activation_checkpointing import checkpoint_activations
from sdclr.backbones.backbone import Backbone, measure_feature_dim
from sdclr.backbones.pretrained import check_pretrained, load_pretrained
from sdclr.backbones.resnet import DEPTHS, ResNet, contiguous_tails
from sdclr.config import Section
from sdclr.errors import ConfigError

__all__ = [
    "Backbone",
    "BackboneConfig",
    "build_backbone",
    "checkpoint_activations",
    "contiguous_tails",
    "load_pretrained",
    "measure_feature_dim",
]


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
    """Further keywords for the constructor of a torchvision or timm network, e.g. {"img_size": 32}."""

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our ResNets, which have a width and a stem."""
        return self.name in DEPTHS


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network named in the config, headless, with fresh weights, also where pretrained ones are to follow.

    Raises ConfigError for unknown names, and where nobody offers the pretrained weights that are asked for.
    """
    kind, _, name = config.name.rpartition(":")
    changed = [f for f in ("width", "stem") if getattr(config, f) != BackboneConfig.model_fields[f].default]
    if kind and changed:
        raise ConfigError(f"backbone.{changed[0]} applies to our ResNets only; use backbone.options for {config.name}.")
    if not kind and config.options:
        raise ConfigError(f"backbone.options applies to torchvision: and timm: networks only, not to {config.name}.")
    if config.pretrained:
        check_pretrained(config.name, config.width, config.stem)
    if kind == "timm":
        network = _timm_network(name, config.options)
        trained_with = timm.get_pretrained_cfg(name) if config.pretrained else None
        return Backbone(network, trained_with.mean, trained_with.std) if trained_with else Backbone(network)
    if kind == "torchvision":
        return Backbone(_torchvision_network(name, config.options))
    if kind or name not in DEPTHS:
        raise ConfigError(
            f"backbone.name must be one of {', '.join(DEPTHS)}, torchvision:<name> or timm:<name>, "
            f"got {config.name!r}.{_did_you_mean(name, list(DEPTHS))}"
        )
    return Backbone(ResNet(name, config.width, config.stem))


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
        network = torchvision.models.get_model(name, weights=None, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"torchvision:{name} does not take backbone.options {options}: {error}") from error
    for attribute in ("fc", "head", "heads", "classifier"):
        head = getattr(network, attribute, None)
        if isinstance(head, nn.Linear):
            setattr(network, attribute, nn.Identity())
            return network
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            head[-1] = nn.Identity()
            return network
    raise ConfigError(f"torchvision:{name} has no linear classifier to remove; use its timm: counterpart.")


def _did_you_mean(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""
