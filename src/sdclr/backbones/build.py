"""Settings -> a network: our ResNets, torchvision's and timm's, headless."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from sdclr.backbones.backbone import Backbone
from sdclr.backbones.config import (
    IMAGENET,
    NO_NORMALISATION,
    BackboneConfig,
    Normalisation,
    settings_without_effect,
    unset_value,
)
from sdclr.backbones.resnet import DEPTHS, ResNet
from sdclr.backbones.table import BACKBONES, BackboneRow, row_of
from sdclr.errors import ConfigError
from sdclr.outside import load


def input_constants(config: BackboneConfig) -> Normalisation:
    """The mean and std that a fresh backbone of these settings has, before any weights are loaded."""
    if isinstance(config.normalisation, Normalisation):
        return config.normalisation
    if config.normalisation == "none":
        return NO_NORMALISATION
    if (
        config.normalisation == "auto"
        and config.pretrained
        and "transform_input" not in config.options
    ):
        return normalisation_of_library(config.name) or IMAGENET
    return IMAGENET


def normalisation_of_library(name: str) -> Normalisation | None:
    """The constants with which timm or torchvision has trained its weights of a network; None where nobody says so."""
    from sdclr.backbones.pretrained import trained_with

    constants = trained_with(name)
    if constants is None:
        return None
    return Normalisation(mean=_three(constants[0]), std=_three(constants[1]))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network named in the config, headless, with fresh weights, also where pretrained ones are to follow.

    Raises ConfigError for unknown names, and where nobody offers the pretrained weights that are asked for.
    """
    row = require_row(config.name)
    for field, words in settings_without_effect(config.name).items():
        if getattr(config, field) != unset_value(field):
            raise ConfigError(words)
    if config.pretrained:
        check_pretrained(config.name, config.width, config.stem)
    require_known_network(config.name)
    build: Callable[[str, BackboneConfig], nn.Module] = load(row.builder)
    network = build(config.name.partition(":")[2], config)
    constants = input_constants(config)
    return Backbone(network, constants.mean, constants.std)


def require_row(name: str) -> BackboneRow:
    """ConfigError for a backbone.name that names nothing, with what may be meant."""
    row = row_of(name)
    if row is not None and (":" in name) == row.written.endswith(":NAME"):
        return row
    own = [row.name for row in BACKBONES.values() if row.origin]
    near = _did_you_mean(name, [*DEPTHS, *own])
    raise ConfigError(
        f"backbone.name must be one of {', '.join([*DEPTHS, *own])}, torchvision:<name> or timm:<name>, got {name!r}."
        f"{near}"
    )


def require_known_network(backbone: str) -> None:
    """ConfigError, with the nearest names, for a name that no network of ours, yours, timm's or torchvision's has."""
    library = require_row(backbone).name
    name = backbone.partition(":")[2]
    if library == "timm":
        import timm  # seconds, and only networks of timm need it

        if not timm.is_model(name):
            raise ConfigError(
                f"timm has no model {name!r}.{_did_you_mean(name, timm.list_models())}"
            )
    elif library == "torchvision":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise ConfigError(
                f"torchvision has no classification model {name!r}.{_did_you_mean(name, names)}"
            )


def check_pretrained(name: str, width: int, stem: str) -> None:
    """Raise ConfigError where nobody offers weights for this network, before any download.

    A library is imported for its own networks alone: that takes seconds, and ours are known.
    """
    kind, _, model = name.rpartition(":")
    row = row_of(name)
    if row is not None and "pretrained" not in row.settings:
        raise ConfigError(
            f"nobody offers pre-trained weights for {name}; start from your own with weights=FILE."
        )
    if kind == "timm":
        import timm

        if not timm.is_model_pretrained(model):
            raise ConfigError(
                f"timm offers no pre-trained weights for {model}; set backbone.pretrained=false."
            )
        return
    if not kind and (width, stem) != (64, "large"):
        raise ConfigError(
            f"backbone.pretrained=true needs {name} with backbone.width=64 backbone.stem=large, the network that was "
            f"trained on ImageNet; got width {width}, stem {stem}."
        )
    if model not in (_of_torchvision() if kind else OURS_IN_TORCHVISION):
        raise ConfigError(
            f"torchvision offers no pre-trained {model}; use {', '.join(OURS_IN_TORCHVISION[:-1])} "
            f"or {OURS_IN_TORCHVISION[-1]}."
        )


OURS_IN_TORCHVISION = ("resnet18", "resnet34", "resnet50")
"""Our networks that torchvision has weights for."""


def _of_torchvision() -> list[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def offers_pretrained(config: BackboneConfig) -> bool:
    """Whether there are ImageNet weights for this network; nothing is downloaded."""
    try:
        check_pretrained(config.name, config.width, config.stem)
    except ConfigError:
        return False
    return True


def our_resnet(_: str, config: BackboneConfig) -> nn.Module:
    return ResNet(config.name, config.width, config.stem)


def no_network(_: str, config: BackboneConfig) -> nn.Module:
    raise ConfigError(
        "backbone.name=custom is a module of your own: pass it from Python, network=<your module>."
    )


def own_network(_: str, config: BackboneConfig) -> nn.Module:
    """One that a user has registered."""
    row = BACKBONES[config.name]
    assert row.own is not None
    try:
        network = row.own(**config.options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{config.name} does not take backbone.options {config.options}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        got = type(network).__name__
        raise ConfigError(f"{row.origin} must make a torch.nn.Module, got {got}.")
    return network


def timm_network(name: str, config: BackboneConfig) -> nn.Module:
    import timm

    options = config.options

    if loading := [
        key for key in options if key.startswith(("checkpoint", "pretrained")) or key == "cache_dir"
    ]:
        raise ConfigError(
            f"backbone.options.{loading[0]} loads weights unchecked; use weights or backbone.pretrained."
        )
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"timm:{name} does not take backbone.options {options}: {error}"
        ) from error


def torchvision_network(name: str, config: BackboneConfig) -> nn.Module:
    import torchvision

    options = torchvision_options(name, config.options)
    try:
        if name == "maxvit_t" and options:
            network = torchvision.models.MaxVit(**options)
        else:
            network = torchvision.models.get_model(name, weights=None, **options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"torchvision:{name} does not take backbone.options {config.options}: {error}"
        ) from error
    place = head_of_torchvision(network, name)
    owner, _, last = place.rpartition(".")
    head = nn.AdaptiveAvgPool2d(1) if name.startswith("squeezenet") else nn.Identity()
    setattr(network.get_submodule(owner), last, head)
    return network


def torchvision_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of torchvision's constructor."""
    if name in ("googlenet", "inception_v3"):
        # their defaults return tuples, and warn
        return {"aux_logits": False, "init_weights": True} | dict(options)
    if name == "maxvit_t" and options:
        return _MAXVIT_T | dict(options)
    return dict(options)


def torchvision_code(name: str, options: Mapping[str, Any], network: nn.Module) -> str:
    """Python that makes ``network``, which :func:`torchvision_network` has made."""
    given = torchvision_options(name, options)
    words = ", ".join(f"{key}={value!r}" for key, value in given.items())
    maker = f'torchvision.models.get_model("{name}"{", " if words else ""}{words})'
    if name == "maxvit_t" and options:
        maker = f"torchvision.models.MaxVit({words})"
    place = head_of_torchvision(network, name)
    owner, _, last = place.rpartition(".")
    target = f"network.{owner}[{last}]" if last.isdecimal() else f"network.{place}"
    head = "AdaptiveAvgPool2d(1)" if name.startswith("squeezenet") else "Identity()"
    return f"network = {maker}\n{target} = torch.nn.{head}"


def head_of_torchvision(network: nn.Module, name: str) -> str:
    """The name of the classifier's last layer in a network of torchvision, or of what stands in its place."""
    if name.startswith("squeezenet"):  # its classifier is a convolution and the pooling behind it
        return "classifier"
    for attribute in ("fc", "head", "heads", "classifier"):
        head = getattr(network, attribute, None)
        if isinstance(head, nn.Linear | nn.Identity):
            return attribute
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear | nn.Identity):
            return f"{attribute}.{list(dict(head.named_children()))[-1]}"
    raise ConfigError(
        f"torchvision:{name} has no linear classifier to remove; use its timm: counterpart."
    )


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
