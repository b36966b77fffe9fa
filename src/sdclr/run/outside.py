"""What a run has from outside the package, and the options with which a command knows it again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from sdclr.errors import DataError, MissingInputError
from sdclr.run.folder import Run


def outside_parts(run: Run) -> dict[str, tuple[str, str]]:
    """What is not part of the package: "method", "method.base", ... -> its name and its "module:Name"."""
    found: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(DataError, MissingInputError):
        origins = section(run.read_json("environment.json"), "outside")
        settings = run.settings()
        for what, origin in origins.items():
            within: Mapping[str, Any] = settings
            for part in what.split("."):  # "method.base": what another method lies around
                within = section(within, part)
            name = within.get("name")
            if isinstance(origin, str) and isinstance(name, str):
                found[what] = name, origin
    return found


def use_options(run: Run, *kinds: str) -> list[str]:
    """The --use options with which a command knows what this run has from outside the package."""
    parts = outside_parts(run)
    words: list[str] = []
    for kind in kinds:
        for what, (_, origin) in parts.items():
            if what == kind or what.startswith(f"{kind}."):
                words += ["--use", origin]
    return words


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A group of settings; empty where a damaged file has something else there."""
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}
