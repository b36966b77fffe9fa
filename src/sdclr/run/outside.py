"""The parts of a run from outside the package, and the options with which a command finds them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sdclr.errors import DataError, MissingInputError
from sdclr.outside import plain_name
from sdclr.run.folder import Run


def outside_parts(run: Run) -> dict[str, tuple[str, str]]:
    """Parts from outside the package: "method", "method.base", "views.own", ... -> name and "module:Name"."""
    found: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(DataError, MissingInputError):
        environment, settings = run.read_json("environment.json"), run.settings()
        for what, origin in section(environment, "outside").items():
            within: Mapping[str, Any] = settings
            for part in what.split("."):  # "method.base": the method that another one wraps
                within = section(within, part)
            name = within.get("name")
            if isinstance(origin, str) and isinstance(name, str):
                found[what] = name, origin
        found |= _own_views(environment, settings)
    return found


def _own_views(
    environment: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Views that --use can name: an object registered from Python has its class as origin."""
    origins = section(section(environment, "resolved"), "own_views")
    for key in ("own", "own_batch"):
        name, origin = section(settings, "views").get(key), origins.get(key)
        if isinstance(name, str) and isinstance(origin, str) and name == plain_name(origin):
            yield f"views.{key}", (name, origin)


def use_options(run: Run, *kinds: str) -> list[str]:
    """The --use options with which a command finds this run's parts from outside the package."""
    return use_options_of([run], *kinds)


def use_options_of(runs: Iterable[Run], *kinds: str) -> list[str]:
    """The same for several runs; each option once, as a name is registered only once."""
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
