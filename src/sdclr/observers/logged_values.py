"""Shared parts of the observers for other tools: package checks, and values in the form they accept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdclr.errors import ConfigError
from sdclr.observers.observer import TrainingBegins


def require_package(name: str) -> None:
    """Raise ConfigError, naming the extra, if a package is not installed."""
    if find_spec(name) is None:
        raise ConfigError(
            f'logging to {name} needs the package {name}: pip install "sdclr[{name}]", or leave --log {name} out.'
        )


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names.

    >>> dict(flat({"method": {"temperature": 0.2}, "epochs": 3}))
    {'method.temperature': 0.2, 'epochs': 3}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def finite(measured: Mapping[str, float]) -> dict[str, float]:
    """Only the finite values, which can be plotted."""
    return {name: float(value) for name, value in measured.items() if math.isfinite(value)}


def folder_of(begins: TrainingBegins, name: str, given: Path | str | None) -> Path:
    """The folder of a log's files: the one ``given``, or ``name`` in the run folder."""
    if given is not None:
        return Path(given)
    return Path(begins.folder or ".") / name
