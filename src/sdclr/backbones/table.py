"""BACKBONES: everything the rest of the program needs to know about a network, by name or by the word before its colon.

Rows are lightweight: help, lists and settings import no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sdclr.errors import ConfigError
from sdclr.outside import Table, is_outside, load_outside, origin_of, summary_of
from sdclr.safe_text import shown


class BackboneRow(NamedTuple):
    """One network, or one library's networks."""

    name: str
    written: str
    """How it is written as backbone.name."""
    summary: str
    settings: frozenset[str]
    """Fields of BackboneConfig, besides name and normalisation, that it uses."""
    builder: str
    """ "module:function": (rest of the name, BackboneConfig, channels) -> a headless network; imported when used."""
    origin: str = ""
    """ "module:Name" of an entry from outside the package; empty for the package's own."""
    own: Callable[..., Any] | None = None
    """Makes a network from outside; its keyword arguments are backbone.options."""


_OURS = frozenset({"width", "stem", "pretrained"})
_THEIRS = frozenset({"options", "pretrained"})
_BUILD = "sdclr.backbones.build:"

BACKBONES: Table[BackboneRow] = Table(
    "backbone",
    [
        BackboneRow(
            "resnet10", "resnet10", "Our ResNet with 10 layers.", _OURS, f"{_BUILD}our_resnet"
        ),
        BackboneRow(
            "resnet18", "resnet18", "Our ResNet with 18 layers.", _OURS, f"{_BUILD}our_resnet"
        ),
        BackboneRow(
            "resnet34", "resnet34", "Our ResNet with 34 layers.", _OURS, f"{_BUILD}our_resnet"
        ),
        BackboneRow(
            "resnet50", "resnet50", "Our ResNet with 50 layers.", _OURS, f"{_BUILD}our_resnet"
        ),
        BackboneRow(
            "torchvision",
            "torchvision:NAME",
            "Any classifier of torchvision, without its head.",
            _THEIRS,
            f"{_BUILD}torchvision_network",
        ),
        BackboneRow(
            "timm",
            "timm:NAME",
            "Any network of timm, without its head.",
            _THEIRS,
            f"{_BUILD}timm_network",
        ),
        BackboneRow(
            "custom",
            "custom",
            "Your own module, given from Python.",
            frozenset(),
            f"{_BUILD}no_network",
        ),
    ],
)
"""Name -> row."""

OUR_RESNETS = tuple(name for name, row in BACKBONES.items() if row.settings == _OURS)
"""Names of our own networks, which have a width and a stem."""


def row_of(name: str) -> BackboneRow | None:
    """The row of a backbone.name; None where there is none."""
    library, _, rest = name.partition(":")
    return None if ":" in rest else BACKBONES.get(library)  # timm would fetch hf-hub:somebody/net


def register_backbone(build: Callable[..., Any], name: str | None = None) -> str:
    """Add a network of your own to :data:`BACKBONES`; returns its name.

    ``build``: a function or class that makes a headless module, images [B, channels, S, S] -> features
    [B, F];
    ``backbone.options`` are its keyword arguments. ``name``: its name in settings; default: that of ``build`` in lower
    case. A run, its file and :func:`load_backbone` look it up by that name, so register it before a file is loaded.
    Raises ConfigError for a name that is taken or not plain. See docs/extending.md.

    >>> from torch import nn
    >>> def tiny(width=4):
    ...     "One layer."
    ...     return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> with BACKBONES.temporarily():
    ...     register_backbone(tiny)
    'tiny'
    """
    if problem := why_no_backbone(build):
        raise ConfigError(f"{shown(repr(build))} cannot be a backbone: {problem}.")
    name = name or str(build.__name__).lower()
    options, builder = frozenset({"options"}), f"{_BUILD}own_network"
    BACKBONES.add(
        BackboneRow(name, name, summary_of(build), options, builder, origin_of(build), build)
    )
    return name


def why_no_backbone(found: Any) -> str:
    """What keeps an object from being registered as a backbone, in words; empty where nothing does."""
    from torch import nn

    if isinstance(found, nn.Module):
        return "it is a module already; name a function or class that makes one"
    if not callable(found) or not hasattr(found, "__name__"):
        return "it is not a function or class"
    if isinstance(found, type) and not issubclass(found, nn.Module):
        return "it is a class, but not a torch.nn.Module"
    return ""


def named_backbone(text: str) -> str:
    """The name of a backbone that a user typed: "resnet18", "timm:NAME", or "module:Name", which is registered."""
    if not is_outside(text) or row_of(text) is not None:
        return text
    return register_backbone(load_outside(text, "backbone", why_no_backbone))
