"""A user's own observers, by "module:Class" as they are named on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sdclr.errors import ConfigError
from sdclr.observers.observer import Observer
from sdclr.outside import is_outside, load_outside
from sdclr.safe_text import shown


def own_observers(names: Iterable[str]) -> list[Observer]:
    """An instance of each "module:Class", or the object "module:name"; each name once.

    Raises ConfigError for anything but an observer, and for a class that cannot be created without arguments.

    >>> own_observers(["sdclr.observers:Observer"])[0].required
    False
    """
    return [_made(name) for name in dict.fromkeys(names)]


def _made(name: str) -> Observer:
    if not is_outside(name):
        raise ConfigError(
            f"--observe takes module:Class, a subclass of sdclr.Observer, got {shown(name)}. Logs for other tools are "
            "--log NAMES."
        )
    found = load_outside(name, "observer", why_no_observer)
    if isinstance(found, Observer):
        return found
    try:
        made: Observer = found()
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{shown(name)}() failed, which is called without arguments: {type(error).__name__}: {shown(error)}. Mend "
            "it; where it needs arguments, name an object instead: watcher = Mine(...), then module:watcher."
        ) from error
    return made


def why_no_observer(found: Any) -> str:
    """Why an object is not an observer, in words; empty if it is one."""
    if isinstance(found, Observer) or (isinstance(found, type) and issubclass(found, Observer)):
        return ""
    return "it is not a subclass of sdclr.Observer"
