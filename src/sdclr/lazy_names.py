"""Names that a package re-exports, imported when they are accessed, so that its settings can be read without torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_from(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562). ``homes``: name -> the module that defines it.

    >>> names_from("shapes", {"sqrt": "math"})("sqrt")(9)
    3.0
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return __getattr__
