"""What a person names as ``module:Name`` on the command line, added to the table it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sdclr.backbones.table import register_backbone, why_no_backbone
from sdclr.methods.table import register_method, why_no_method
from sdclr.outside import load_outside


class _Kind(NamedTuple):
    what: str
    problem: Callable[[Any], str]
    """What keeps an object from being one, in words; empty where nothing does."""
    register: Callable[[Any], str]


_KINDS = (
    _Kind("method", why_no_method, register_method),
    _Kind("backbone", why_no_backbone, register_backbone),
)


def use(words: Iterable[str]) -> None:
    """Import and register each ``module:Name``. Raises ConfigError for one that fits no table."""
    for text in words:
        found = load_outside(text, "entry of your own", _why_nothing)
        next(kind for kind in _KINDS if not kind.problem(found)).register(found)


def _why_nothing(found: Any) -> str:
    """Empty where the object fits a table."""
    problems = [(kind.what, kind.problem(found)) for kind in _KINDS]
    if not all(problem for _, problem in problems):
        return ""
    return "; ".join(f"as a {what}, {problem}" for what, problem in problems)
