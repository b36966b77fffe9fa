"""Complete configs by name. A recipe is a function without arguments; override what you like afterwards.

``*_simclr`` and ``*_sdclr`` are the paper's systems as published, their confounds included; ``*_simclr_matched`` gives
SimCLR every setting of the SDCLR recipe but the competitor. :data:`SYSTEMS` arranges them by data set and arm.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.recipes import cifar, digits, imagenet

RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    function.__name__: function
    for function in (
        digits.digits_balanced_simclr,
        digits.digits_simclr,
        digits.digits_sdclr,
        cifar.cifar10_balanced_simclr,
        cifar.cifar10_lt_simclr,
        cifar.cifar10_lt_sdclr,
        cifar.cifar10_balanced_simclr_matched,
        cifar.cifar10_lt_simclr_matched,
        cifar.cifar100_balanced_simclr,
        cifar.cifar100_lt_simclr,
        cifar.cifar100_lt_sdclr,
        cifar.cifar100_balanced_simclr_matched,
        cifar.cifar100_lt_simclr_matched,
        imagenet.imagenet100_balanced_simclr,
        imagenet.imagenet100_lt_simclr,
        imagenet.imagenet100_lt_sdclr,
        imagenet.imagenet100_balanced_simclr_matched,
        imagenet.imagenet100_lt_simclr_matched,
        imagenet.imagenet_lt_exp_balanced_simclr,
        imagenet.imagenet_lt_exp_simclr,
        imagenet.imagenet_lt_exp_sdclr,
        imagenet.imagenet_lt_exp_balanced_simclr_matched,
        imagenet.imagenet_lt_exp_simclr_matched,
    )
}


def _arms(balanced: str, long_tail: str) -> dict[str, str]:
    return {
        "simclr_balanced": f"{balanced}_simclr",
        "simclr": f"{long_tail}_simclr",
        "sdclr": f"{long_tail}_sdclr",
        "simclr_balanced_matched": f"{balanced}_simclr_matched",
        "simclr_matched": f"{long_tail}_simclr_matched",
    }


SYSTEMS: Mapping[str, Mapping[str, str]] = {
    "cifar10": _arms("cifar10_balanced", "cifar10_lt"),
    "cifar100": _arms("cifar100_balanced", "cifar100_lt"),
    "imagenet100": _arms("imagenet100_balanced", "imagenet100_lt"),
    "imagenet_lt_exp": _arms("imagenet_lt_exp_balanced", "imagenet_lt_exp"),
    # its published settings would be ours in any case: the arms are matched as they are
    "digits": {"simclr_balanced": "digits_balanced_simclr", "simclr": "digits_simclr", "sdclr": "digits_sdclr"},
}
"""Data set -> arm -> recipe."""

ARM_SETS: Mapping[str, tuple[str, ...]] = {
    "paper": ("simclr_balanced", "simclr", "sdclr"),
    "matched": ("simclr_balanced_matched", "simclr_matched", "sdclr"),
}
"""The arms as published, confounds included, and the arms that differ in nothing but method and subset."""


def recipe(name: str) -> PretrainConfig:
    """The named recipe's config. Raises ConfigError that lists the names."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"there is no recipe {name!r}.{hint} Recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]()
