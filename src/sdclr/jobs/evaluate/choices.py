"""The named choices of an evaluation: protocols, probes, handling of classes without images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from sdclr.errors import ConfigError
from sdclr.evaluation.probes import PROBES, PROTOCOLS, ProbeRow, Protocol, probes_under
from sdclr.outside import is_outside
from sdclr.run import Run
from sdclr.safe_text import shown

Untested = Literal["raise", "leave_out"]
"""How a class without a usable test or training image is handled."""
AUTHORS_CLASSIFIER = "authors_classifier"
"""The protocol of classifiers that somebody else trained: never mixed with our own probes."""


def check_protocol(name: str) -> Protocol:
    """The protocol of this name; raises ConfigError if there is none."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}.")
    return name


def check_untested(name: str) -> Untested:
    """The choice of this name; raises ConfigError if there is none."""
    if name not in get_args(Untested):
        raise ConfigError(f"untested must be {' or '.join(get_args(Untested))}, got {name!r}.")
    return cast(Untested, name)


def chosen_probes(names: Sequence[str] | None, protocol: Protocol, run: Run) -> list[ProbeRow]:
    """The rows of the requested probes, in the order of the table; None: all that the protocol has.

    Raises ConfigError for an unknown probe, and for one without this protocol. An external probe
    that the run was measured with before must be named with its module again: no file of a run
    imports it.
    """
    if isinstance(names, str):
        raise ConfigError(
            f"probes must be a list of names, got {shown(names)!r}: probes=[{names!r}]."
        )
    names = probes_under(protocol) if names is None else list(names)
    unknown = [name for name in names if name not in PROBES]
    if unknown or not names:
        raise ConfigError(
            f"probes must be among {', '.join(PROBES)}, "
            f"got {', '.join(map(shown, names)) or 'none'}."
            f"{_outside(unknown[0], protocol, run) if unknown else ''}"
        )
    rows = [row for row in PROBES.values() if row.name in names]
    for row in rows:
        row.require(protocol)
    return rows


def _outside(name: str, protocol: Protocol, run: Run) -> str:
    """A hint about an unknown probe that may come from outside the package."""
    if is_outside(name):
        return " In Python, register a probe of your own first: sdclr.register_probe(CLASS)."
    before: Any = None
    if run.evaluation_path(protocol).is_file():
        before = run.read_evaluation(protocol)["probes"].get(name)
    if before is None:
        return " One of your own is named as module:Name."
    origin = shown(before.get("origin") or "a class that the file does not name")
    return (
        f" {shown(name)} was measured here before, by {origin}, which is not of this package. If you "
        "have it and trust it, name it again: --probes module:Name, or in Python "
        "sdclr.register_probe(CLASS)."
    )
