"""Register what is named as ``module:Name`` on the command line in the tables it fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sdclr.backbones.table import named_backbone, register_backbone, why_no_backbone
from sdclr.data.own_views import named_views, use_views, why_no_views
from sdclr.data.table import named_source, register_source, why_no_source
from sdclr.evaluation.probes import register_probe, why_no_probe
from sdclr.methods.table import named_method, register_method, why_no_method
from sdclr.outside import load_outside


class _Kind(NamedTuple):
    what: str
    problem: Callable[[Any], str]
    """Why an object is not of this kind, in words; empty if it is."""
    register: Callable[[Any, str], object]
    """Takes the object, and "module:Name" as it was typed."""


_KINDS = (
    _Kind("method", why_no_method, lambda found, text: register_method(found)),
    _Kind("probe", why_no_probe, lambda found, text: register_probe(found)),
    _Kind("backbone", why_no_backbone, lambda found, text: register_backbone(found)),
    _Kind("data set", why_no_source, lambda found, text: register_source(found)),
    _Kind("view transform", why_no_views, use_views),
)


_NAMED: dict[str, Callable[[str], str]] = {
    "method.name": named_method,
    "backbone.name": named_backbone,
    "data.name": named_source,
    "views.own": named_views,
    "views.own_batch": named_views,
}
"""Setting -> function that registers "module:Name" and returns its name."""

_BASE = re.compile(r"(?<=^method)(\.base)+(?=\.name$)")


def with_own_entries(given: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were typed, by dotted name, with ``module:Name`` registered and replaced by its name."""
    known = dict(given)
    for setting, value in given.items():
        # a method that wraps another one has it as its base
        plain = _BASE.sub("", setting)
        if plain in _NAMED and isinstance(value, str):
            known[setting] = _NAMED[plain](value)
    return known


def use(words: Iterable[str]) -> None:
    """Import and register each ``module:Name``. Raises ConfigError for one that fits no table.

    A function may build a network, read a data set or make views: it is registered as all of them, and a setting
    decides how it is used.
    """
    for text in words:
        found = load_outside(
            text, "method, probe, backbone, data set or view transform", _why_nothing
        )
        for kind in _KINDS:
            if not kind.problem(found):
                kind.register(found, text)


def _why_nothing(found: Any) -> str:
    """Why an object fits no table, in words; empty if it fits one."""
    problems = [(kind.what, kind.problem(found)) for kind in _KINDS]
    if not all(problem for _, problem in problems):
        return ""
    return "; ".join(f"as a {what}, {problem}" for what, problem in problems)
