"""A run on images from Python objects: check them once, and choose settings for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdclr.any_progress import AnyProgress
from sdclr.compute.device import bf16_speedup_of_cpu, resolve_device
from sdclr.compute.memory import free_memory
from sdclr.data import DataConfig, LabelledImages
from sdclr.data.collections.given_images import GivenImages
from sdclr.data.sources.python_objects import given_images
from sdclr.jobs.pretrain.folder import Choices
from sdclr.recipes import RECIPES, recipe
from sdclr.recipes.own_images import own_images
from sdclr.settings import PretrainConfig


def look_at_given(
    images: Any,
    labels: Sequence[Any] | None,
    show: AnyProgress,
    config: PretrainConfig | None = None,
) -> LabelledImages:
    """Read every image once, with progress; by the settings of the config, if there is one."""
    total = len(images) if hasattr(images, "__len__") else 0
    task = show.add("images given", total=total, unit="images")
    found = given_images(
        images,
        labels,
        channels=None if config is None else config.data.channels,
        grey_bits=16 if config is None else config.data.grey_bits,
        advance=lambda done: show.advance(task, done),
    )
    show.finish(task)
    return found


def settings_for(
    given: LabelledImages, config: PretrainConfig | None, choices: Choices
) -> tuple[PretrainConfig, Choices]:
    """The config with these images as its data; without a config, settings chosen for them, with reasons."""
    train = given.train
    data = DataConfig(
        name="given",
        subset="all" if train.labels is None else "long_tail",
        channels=train.channels,
        grey_bits=16 if config is None else config.data.grey_bits,
    )
    if config is not None:
        if config.data.name == "given":
            return config, choices
        return config.with_values({"data": data.to_dict() | _kept(config)}), choices
    assert isinstance(train, GivenImages)
    device = resolve_device("auto")
    return own_images(
        data,
        num_images=len(train),
        typical_side=int(np.median(train.sizes.min(axis=1))) if len(train) else 0,
        device=device.type,
        free_memory_bytes=free_memory(device),
        bf16_speedup=bf16_speedup_of_cpu() if device.type == "cpu" else None,
    )


_FITTING = ("subset", "split", "validation_per_class", "num_workers")
"""Data settings that also apply to given images."""
_GIVEN_ANEW = ("name", "path", "options", "channels", "grey_bits")
"""Settings that the images themselves replace."""


def _kept(config: PretrainConfig) -> dict[str, Any]:
    """The user's data settings that differ from the recipe; a warning names those that do not apply."""
    if config.recipe not in RECIPES:
        return {}
    usual = recipe(config.recipe).data.to_dict()
    changed = {
        name: value
        for name, value in config.data.to_dict().items()
        if name not in _GIVEN_ANEW and value != usual[name]
    }
    if useless := [f"data.{name}" for name in changed if name not in _FITTING]:
        warnings.warn(
            f"left out, as they do nothing for images that are given: {', '.join(useless)}.",
            stacklevel=5,
        )
    return {name: value for name, value in changed.items() if name in _FITTING}
