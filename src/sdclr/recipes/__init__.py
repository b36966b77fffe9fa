"""Complete configs by name. A recipe is a function without arguments; override what you like afterwards.

``*_simclr`` and ``*_sdclr`` are the paper's systems as published, including their confounds; ``*_simclr_matched`` gives
SimCLR every setting of the SDCLR recipe but the competitor. :data:`SYSTEMS` arranges them by data set and arm.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sdclr.errors import ConfigError
from sdclr.outside import Table, is_outside, load, load_outside, origin_of, summary_of
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from sdclr.settings import PretrainConfig


class Recipe(NamedTuple):
    """A row of the table: what a list shows, and the place of the function that returns the config."""

    name: str
    summary: str
    module: str
    origin: str = ""
    """ "module:Name" of an entry from outside the package; empty for one of ours."""
    own: Callable[[], PretrainConfig] | None = None
    """The function of an external entry."""

    def __call__(self) -> PretrainConfig:
        function: Callable[[], PretrainConfig] = self.own or load(f"{self.module}:{self.name}")
        return function()


_ROWS = (
    Recipe(
        "digits_balanced_simclr",
        "SimCLR on the balanced twin of the long-tailed digits.",
        "sdclr.recipes.digits",
    ),
    Recipe(
        "digits_simclr",
        "SimCLR on long-tailed digits.",
        "sdclr.recipes.digits",
    ),
    Recipe(
        "digits_sdclr",
        "SDCLR on long-tailed digits; the same projector as digits_simclr.",
        "sdclr.recipes.digits",
    ),
    Recipe(
        "cifar10_balanced_simclr",
        "SimCLR on the balanced twin of CIFAR-10-LT, as published: 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_lt_simclr",
        "SimCLR on CIFAR-10-LT as published: 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_lt_sdclr",
        "SDCLR on CIFAR-10-LT as published: 3-layer head, 90 % pruned, own norms.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_balanced_simclr_matched",
        "SimCLR on the balanced twin of CIFAR-10-LT with SDCLR's 3-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_lt_simclr_matched",
        "SimCLR on CIFAR-10-LT with SDCLR's 3-layer head: the fair baseline of cifar10_lt_sdclr.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_balanced_simclr",
        "SimCLR on the balanced twin of CIFAR-100-LT, as published: 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_lt_simclr",
        "SimCLR on CIFAR-100-LT as published: 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_lt_sdclr",
        "SDCLR on CIFAR-100-LT as published: 3-layer head, 90 % pruned, own norms.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_balanced_simclr_matched",
        "SimCLR on the balanced twin of CIFAR-100-LT with SDCLR's 3-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_lt_simclr_matched",
        "SimCLR on CIFAR-100-LT with SDCLR's 3-layer head: the fair baseline of cifar100_lt_sdclr.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_50k_lt_simclr",
        "SimCLR on the usual CIFAR-10-LT (all 50,000 images drawn from), 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_50k_lt_sdclr",
        "SDCLR on the usual CIFAR-10-LT, 3-layer head, 90 % pruned, own norms.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar10_50k_lt_simclr_matched",
        "SimCLR on the usual CIFAR-10-LT with SDCLR's 3-layer head: the baseline of cifar10_50k_lt_sdclr.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_50k_lt_simclr",
        "SimCLR on the usual CIFAR-100-LT (all 50,000 images drawn from), 2-layer head.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_50k_lt_sdclr",
        "SDCLR on the usual CIFAR-100-LT, 3-layer head, 90 % pruned, own norms.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "cifar100_50k_lt_simclr_matched",
        "SimCLR on the usual CIFAR-100-LT with SDCLR's 3-layer head: the baseline of cifar100_50k_lt_sdclr.",
        "sdclr.recipes.cifar",
    ),
    Recipe(
        "imagenet100_balanced_simclr",
        "SimCLR on the balanced twin of ImageNet-100-LT, as published: 2-layer head.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet100_lt_simclr",
        "SimCLR on ImageNet-100-LT as published: 2-layer head, temperature 0.2.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet100_lt_sdclr",
        "SDCLR on ImageNet-100-LT as published: 3-layer head, temperature 0.3, 30 % pruned, own norms.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet100_balanced_simclr_matched",
        "SimCLR on the balanced twin of ImageNet-100-LT with SDCLR's head and temperature.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet100_lt_simclr_matched",
        "SimCLR on ImageNet-100-LT with SDCLR's head and temperature: the fair baseline of imagenet100_lt_sdclr.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet_lt_exp_balanced_simclr",
        "SimCLR on the balanced twin of ImageNet-LT-exp, as published: 2-layer head.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet_lt_exp_simclr",
        "SimCLR on ImageNet-LT-exp as published: 2-layer head.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet_lt_exp_sdclr",
        "SDCLR on ImageNet-LT-exp: OURS, UNPUBLISHED (3-layer head, temperature 0.2, 30 % pruned, own norms).",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet_lt_exp_balanced_simclr_matched",
        "SimCLR on the balanced twin of ImageNet-LT-exp with the 3-layer head of imagenet_lt_exp_sdclr.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "imagenet_lt_exp_simclr_matched",
        "SimCLR on ImageNet-LT-exp with the 3-layer head: the fair baseline of imagenet_lt_exp_sdclr.",
        "sdclr.recipes.imagenet",
    ),
    Recipe(
        "places_lt_simclr_matched",
        "SimCLR on Places-LT with SDCLR's 2-layer head. Not run.",
        "sdclr.recipes.published_lists",
    ),
    Recipe(
        "places_lt_sdclr",
        "SDCLR on Places-LT: 2-layer head, 10 % pruned, own norms. Not run.",
        "sdclr.recipes.published_lists",
    ),
    Recipe(
        "inaturalist2018_simclr_matched",
        "SimCLR on iNaturalist 2018 with SDCLR's 2-layer head. Not run.",
        "sdclr.recipes.published_lists",
    ),
    Recipe(
        "inaturalist2018_sdclr",
        "SDCLR on iNaturalist 2018: 2-layer head, 10 % pruned, own norms. Not run.",
        "sdclr.recipes.published_lists",
    ),
)

RECIPES: Table[Recipe] = Table("recipe", _ROWS)
"""By name, in the order of every list. Light: a recipe's own module, and torch, are imported when it is called."""


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
    # there are no published settings, and ours already match between the arms
    "digits": {
        "simclr_balanced": "digits_balanced_simclr",
        "simclr": "digits_simclr",
        "sdclr": "digits_sdclr",
    },
}
"""Data set -> arm -> recipe."""

ARM_SETS: Mapping[str, tuple[str, ...]] = {
    "paper": ("simclr_balanced", "simclr", "sdclr"),
    "matched": ("simclr_balanced_matched", "simclr_matched", "sdclr"),
}
"""The arms as published, including confounds, and the arms that differ only in method and subset."""


def register_recipe(function: Callable[[], PretrainConfig]) -> str:
    """Add a recipe of your own to :data:`RECIPES`; return its name, which is the function's.

    ``function``: takes nothing and returns a :class:`PretrainConfig`; lists show the first line of its docstring.
    Raises ConfigError for a name that is taken or not plain, and if the function returns something else.

    >>> def short_digits():
    ...     "SDCLR on digits, one epoch."
    ...     return recipe("digits_sdclr").with_values({"epochs": 1})
    >>> with RECIPES.temporarily():
    ...     register_recipe(short_digits)
    'short_digits'
    """
    if problem := why_no_recipe(function):
        raise ConfigError(f"{shown(repr(function))} cannot be a recipe: {problem}.")
    name = function.__name__
    RECIPES.add(
        Recipe(name, summary_of(function), function.__module__, origin_of(function), function)
    )
    return name


def why_no_recipe(found: Any) -> str:
    """Why an object cannot be registered as a recipe, in words; empty if it can."""
    from sdclr.settings import PretrainConfig

    if not inspect.isfunction(found):
        return "it is not a function"
    if any(one.default is one.empty for one in inspect.signature(found).parameters.values()):
        return "it must take no arguments"
    config = found()
    if not isinstance(config, PretrainConfig):
        return f"it must return a PretrainConfig, got {type(config).__name__}"
    return ""


def named_recipe(text: str) -> str:
    """The name of a recipe given as "digits_sdclr", or as "module:function", which is registered."""
    if not is_outside(text):
        return text
    return register_recipe(load_outside(text, "recipe", why_no_recipe))


def recipe(name: str) -> PretrainConfig:
    """The named recipe's config. Raises ConfigError, suggesting a similar name or how to list them.

    >>> recipe("digits_sdclr").method.name
    'sdclr'
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}. {like(name)}")
    return RECIPES[name]()


def like(name: str) -> str:
    """A hint for an unknown recipe: a similar name, or where they are listed."""
    close = difflib.get_close_matches(name, RECIPES, n=1)
    return f"Did you mean {close[0]}?" if close else "`sdclr recipes list` names the recipes."
