"""Settings -> a network: our ResNets, torchvision's and timm's, headless."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sdclr.backbones.backbone import Backbone
from sdclr.backbones.config import (
    IMAGENET,
    BackboneConfig,
    Normalisation,
    no_normalisation,
    settings_without_effect,
    unset_value,
)
from sdclr.backbones.resnet import DEPTHS, ResNet
from sdclr.backbones.table import BACKBONES, BackboneRow, row_of
from sdclr.errors import ConfigError
from sdclr.outside import load


def input_constants(config: BackboneConfig, channels: int = 3) -> Normalisation:
    """The mean and std that a fresh backbone of these settings has, before any weights are loaded.

    For other than 3 channels with normalisation=auto, mean 0.5 and std 0.5: code that has the images measures theirs.
    """
    given = config.normalisation
    if isinstance(given, Normalisation):
        if given.channels != channels:
            raise ConfigError(
                f"backbone.normalisation has {given.channels} numbers, and images have {channels} channels "
                "(data.channels). Give a mean and a std for each."
            )
        return given
    if given == "none":
        return no_normalisation(channels)
    if channels != 3:
        if given == "imagenet":
            raise ConfigError(
                f"backbone.normalisation=imagenet is for 3 channels, and data.channels is {channels}. Use auto, none, "
                'or {"mean": [...], "std": [...]}.'
            )
        return Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels)
    if given == "auto" and config.pretrained and "transform_input" not in config.options:
        return normalisation_of_library(config.name) or IMAGENET
    return IMAGENET


def normalisation_of_library(name: str) -> Normalisation | None:
    """The constants with which timm or torchvision trained its weights of a network; None where not known."""
    from sdclr.backbones.pretrained import trained_with

    constants = trained_with(name)
    if constants is None:
        return None
    mean, std = (tuple(map(float, values)) for values in constants)
    return Normalisation(mean=mean, std=std)


def build_backbone(config: BackboneConfig, channels: int = 3) -> Backbone:
    """The network named in the config, headless, with fresh weights, even where pretrained ones are to follow.

    Its first convolution takes images with ``channels`` channels. Raises ConfigError for unknown names, where requested
    pretrained weights do not exist, and for a network that has no such convolution.
    """
    row = require_row(config.name)
    for field, words in settings_without_effect(config.name).items():
        if getattr(config, field) != unset_value(field):
            raise ConfigError(words)
    if config.pretrained:
        check_pretrained(config.name, config.width, config.stem)
        if channels != 3:
            raise ConfigError(
                f"backbone.pretrained=true starts from weights for images of 3 channels, and data.channels is "
                f"{channels}. Use backbone.pretrained=false, or data.channels=3."
            )
    require_known_network(config.name)
    build: Callable[[str, BackboneConfig, int], nn.Module] = load(row.builder)
    network = build(config.name.partition(":")[2], config, channels)
    constants = input_constants(config, channels)
    return Backbone(network, constants.mean, constants.std)


def require_row(name: str) -> BackboneRow:
    """The row of a backbone.name; ConfigError, with similar names, if there is none."""
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
    """ConfigError, with the nearest names, for a name that is not a network of ours, yours, timm or torchvision."""
    library = require_row(backbone).name
    name = backbone.partition(":")[2]
    if library == "timm":
        import timm  # takes seconds, and only timm's networks need it

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
    """Raise ConfigError where there are no pretrained weights for this network, before any download.

    A library is imported only for its own networks: that takes seconds, and ours are known.
    """
    kind, _, model = name.rpartition(":")
    row = row_of(name)
    if row is not None and "pretrained" not in row.settings:
        raise ConfigError(
            f"there are no pre-trained weights for {name}; start from your own with weights=FILE."
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


def our_resnet(_: str, config: BackboneConfig, channels: int) -> nn.Module:
    return ResNet(config.name, config.width, config.stem, channels)


def no_network(_: str, config: BackboneConfig, channels: int) -> nn.Module:
    raise ConfigError(
        "backbone.name=custom is a module of your own: pass it from Python, network=<your module>."
    )


CHANNEL_KEYWORDS = ("channels", "in_chans", "in_channels")
"""The names that a user's own function that makes a network may give its argument for the number of channels."""


def own_network(_: str, config: BackboneConfig, channels: int) -> nn.Module:
    """A network that a user has registered; the channels are passed where it has a keyword for them."""
    row = BACKBONES[config.name]
    assert row.own is not None
    options = dict(config.options)
    if channels != 3:
        known = inspect.signature(row.own).parameters
        name = next((one for one in CHANNEL_KEYWORDS if one in known), None)
        if name is not None:
            options = {name: channels} | options
    try:
        network = row.own(**options)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{config.name} does not take backbone.options {config.options}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        got = type(network).__name__
        raise ConfigError(f"{row.origin} must make a torch.nn.Module, got {got}.")
    return network


def _require_free(options: Mapping[str, Any]) -> None:
    """ConfigError where the options set the channels, which data.channels does."""
    if "in_chans" in options and options["in_chans"] != 3:
        raise ConfigError(
            f"backbone.options.in_chans={options['in_chans']!r}: the channels of the images are data.channels, which "
            "the network follows. Leave it out."
        )


def timm_network(name: str, config: BackboneConfig, channels: int) -> nn.Module:
    import timm

    options = config.options
    _require_free(options)
    if channels != 3:
        options = {**options, "in_chans": channels}

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


def torchvision_network(name: str, config: BackboneConfig, channels: int) -> nn.Module:
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
    if channels != 3:
        _replace_first_convolution(network, name, channels)
    return network


def _replace_first_convolution(network: nn.Module, name: str, channels: int) -> None:
    """Replace the first convolution by one for ``channels`` channels, with fresh weights.

    They are normal, with a spread that keeps the variance of outputs the same as for 3 channels.
    """
    found = next((one for one in network.named_modules() if isinstance(one[1], nn.Conv2d)), None)
    transforms = getattr(network, "transform_input", False)
    if found is None or found[1].in_channels != 3 or found[1].groups != 1 or transforms:
        why = "transform_input is for 3 channels" if transforms else "its first layer is different"
        raise ConfigError(
            f"torchvision:{name} cannot take images of {channels} channels: {why}. Use its timm: counterpart."
        )
    place, first = found
    assert isinstance(first, nn.Conv2d)
    wide = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    ).to(first.weight.device, first.weight.dtype)
    with torch.no_grad():
        if not first.weight.is_meta:
            spread = float(first.weight.std()) * math.sqrt(3 / channels)
            nn.init.normal_(wide.weight, std=spread)
        if first.bias is not None and wide.bias is not None:
            wide.bias.copy_(first.bias)
    owner, _, last = place.rpartition(".")
    setattr(network.get_submodule(owner), last, wide)


def torchvision_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of torchvision's constructor."""
    if name in ("googlenet", "inception_v3"):
        # their defaults return tuples, and warn
        return {"aux_logits": False, "init_weights": True} | dict(options)
    if name == "maxvit_t" and options:
        return _MAXVIT_T | dict(options)
    return dict(options)


def torchvision_code(name: str, options: Mapping[str, Any], network: nn.Module) -> str:
    """Python code that makes ``network``, a result of :func:`torchvision_network`."""
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
    """The name of the classifier's last layer in a network of torchvision, or of its replacement."""
    if name.startswith("squeezenet"):  # its classifier is a convolution followed by pooling
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
"""torchvision's maxvit_t; its own function does not allow another partition size, which other image sizes need."""


def _did_you_mean(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""
