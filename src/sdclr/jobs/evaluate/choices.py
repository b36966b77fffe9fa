"""What an evaluation can be asked for, by name: protocols, probes, and what becomes of classes without images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from sdclr.errors import ConfigError

Protocol = Literal["cached", "sdclr"]
Untested = Literal["raise", "leave_out"]
"""What becomes of a class without a usable test or training image."""
PROBES = ("linear", "few_shot", "knn")
AUTHORS_CLASSIFIER = "authors_classifier"
"""The protocol of classifiers that somebody else trained: never mixed with our own probes."""


def check_protocol(name: str) -> Protocol:
    """The protocol of this name; ConfigError for one that does not exist."""
    if name not in get_args(Protocol):
        raise ConfigError(f"protocol must be {' or '.join(get_args(Protocol))}, got {name!r}.")
    return cast(Protocol, name)


def check_untested(name: str) -> Untested:
    """The choice of this name; ConfigError for one that does not exist."""
    if name not in get_args(Untested):
        raise ConfigError(f"untested must be {' or '.join(get_args(Untested))}, got {name!r}.")
    return cast(Untested, name)


def check_probes(probes: Sequence[str]) -> None:
    unknown = [probe for probe in probes if probe not in PROBES]
    if unknown or not probes:
        raise ConfigError(f"probes must be among {', '.join(PROBES)}, got {', '.join(probes) or 'none'}.")
