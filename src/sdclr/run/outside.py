"""What a run has from outside the package, and the options with which a command knows it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sdclr.errors import DataError, MissingInputError
from sdclr.outside import plain_name
from sdclr.run.folder import Run


def outside_parts(run: Run) -> dict[str, tuple[str, str]]:
    """What is not part of the package: "method", "method.base", "views.own", ... -> its name and its "module:Name"."""
    found: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(DataError, MissingInputError):
        environment, settings = run.read_json("environment.json"), run.settings()
        for what, origin in section(environment, "outside").items():
            within: Mapping[str, Any] = settings
            for part in what.split("."):  # "method.base": what another method lies around
                within = section(within, part)
            name = within.get("name")
            if isinstance(origin, str) and isinstance(name, str):
                found[what] = name, origin
        found |= _own_views(environment, settings)
    return found


def _own_views(
    environment: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Those that --use can name: an object that was registered from Python has its class for an origin."""
    origins = section(section(environment, "resolved"), "own_views")
    for key in ("own", "own_batch"):
        name, origin = section(settings, "views").get(key), origins.get(key)
        if isinstance(name, str) and isinstance(origin, str) and name == plain_name(origin):
            yield f"views.{key}", (name, origin)


def use_options(run: Run, *kinds: str) -> list[str]:
    """The --use options with which a command knows what this run has from outside the package."""
    return use_options_of([run], *kinds)


def use_options_of(runs: Iterable[Run], *kinds: str) -> list[str]:
    """The same of several runs; each once, for a name is registered but once."""
    origins = dict.fromkeys(
        origin
        for parts in map(outside_parts, runs)
        for kind in kinds
        for what, (_, origin) in parts.items()
        if what == kind or what.startswith(f"{kind}.")
    )
    return [word for origin in origins for word in ("--use", origin)]


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A group of settings; empty where a damaged file has something else there."""
    found = settings.get(name)
    return found if isinstance(found, Mapping) else {}
