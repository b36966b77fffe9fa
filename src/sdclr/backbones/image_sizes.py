"""Networks that are built for one image size: which keywords of their constructors set it, and to what.

Whether a network of others accepts a size is found by trying: it is built and run once without data (device meta), or
on the CPU where that is not possible.
"""

from __future__ import annotations

from typing import Any

import torch

from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.without_data import without_data
from sdclr.compute.process_state import default_generators, silenced_warnings
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

SIZE_OPTIONS = ("img_size", "image_size", "input_size")
"""Keywords of torchvision's and timm's constructors for the image size that a network is built for."""

OFFERED_SIZES = (32, 64, 84, 96, 112, 128, 160, 192, 224, 240, 256, 288, 384)
"""Usual sides of images, with multiples of all usual patches: suggested where a network does not accept another."""

_MAXVIT_REDUCTION = 32
"""Image side / side of the last stage's maps in torchvision's MaxViT."""


def fitted_to(config: BackboneConfig, image_size: int) -> BackboneConfig:
    """``config`` with the options that make its network take images of ``image_size`` x ``image_size`` px.

    Unchanged where the network takes them as it is, and where the options name a size already. Raises ConfigError for a
    network that cannot take images of this size in any known way, with the nearest size that it takes.
    """
    try:
        return _fitted_to(config, image_size)
    except ConfigError as error:
        for size in sorted(OFFERED_SIZES, key=lambda one: abs(one - image_size)):
            if size != image_size and takes(config, size):
                raise ConfigError(
                    f"{config.name} takes no images of {image_size} x {image_size} px; the nearest usual size that it "
                    f"takes: views.size={size} ({shown(error.__cause__ or error, 100)})"
                ) from None
        raise


def takes(config: BackboneConfig, image_size: int) -> bool:
    """Whether the network takes images of ``image_size`` x ``image_size`` px, with options added if necessary."""
    try:
        _fitted_to(config, image_size)
    except ConfigError:
        return False
    return True


def _fitted_to(config: BackboneConfig, image_size: int) -> BackboneConfig:
    kind, _, name = config.name.rpartition(":")
    if kind not in ("timm", "torchvision") or any(
        option in config.options for option in SIZE_OPTIONS
    ):
        return config
    ways = (
        _torchvision_ways(name, image_size)
        if kind == "torchvision"
        else [{}, {"img_size": image_size}]
    )
    first: ConfigError | None = None
    for options in ways:
        fitted = config.model_copy(
            update={"pretrained": False, "options": config.options | options}
        )
        try:
            _try(fitted, image_size)
        except ConfigError as error:
            first = first or error
            continue
        return config.model_copy(update={"options": fitted.options}) if options else config
    assert first is not None
    raise first


def named_sizes(config: BackboneConfig) -> list[int]:
    """The image sizes that a network's options name; none for a network that takes images of any size."""
    given = [config.options[option] for option in SIZE_OPTIONS if option in config.options]
    sides = [value[0] if isinstance(value, list | tuple) and value else value for value in given]
    return [side for side in sides if isinstance(side, int)]


def _torchvision_ways(name: str, size: int) -> list[dict[str, Any]]:
    if name.startswith("vit_"):
        return [{}, {"image_size": size}]
    if name == "maxvit_t":
        return [
            {},
            {"input_size": [size, size], "partition_size": max(size // _MAXVIT_REDUCTION, 1)},
        ]
    return [{}]


def _try(config: BackboneConfig, image_size: int) -> None:
    """ConfigError unless the network can be built and takes images of this size."""
    # draws made here are discarded, so the caller's are not affected
    with default_generators(0, torch.device("cpu")), silenced_warnings():
        backbone = _built_without_data(config)
        if backbone is not None:
            try:
                with torch.device("meta"):
                    measure_feature_dim(backbone, image_size)
                return
            except ConfigError as error:
                # this network needs numbers, so device meta gives no answer
                if not isinstance(error.__cause__, NotImplementedError):
                    raise
        measure_feature_dim(build_backbone(config), image_size)


def _built_without_data(config: BackboneConfig) -> Backbone | None:
    """The network on device meta; None where it cannot be built there, for whatever reason."""
    try:
        with without_data():
            return build_backbone(config)
    except Exception:
        return None
