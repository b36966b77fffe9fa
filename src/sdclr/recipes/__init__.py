"""Complete configs by name. A recipe is a function without arguments; override what you like afterwards."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from sdclr.errors import ConfigError
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.recipes import cifar, digits

RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    function.__name__: function
    for function in (
        digits.digits_simclr,
        digits.digits_sdclr,
        cifar.cifar10_lt_simclr,
        cifar.cifar10_lt_sdclr,
        cifar.cifar10_lt_simclr_matched,
        cifar.cifar10_balanced_simclr,
        cifar.cifar100_lt_simclr,
        cifar.cifar100_lt_sdclr,
        cifar.cifar100_lt_simclr_matched,
        cifar.cifar100_balanced_simclr,
    )
}


def recipe(name: str) -> PretrainConfig:
    """The named recipe's config. Raises ConfigError that lists the names."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"there is no recipe {name!r}.{hint} Recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]()
