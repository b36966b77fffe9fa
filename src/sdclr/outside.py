"""Tables of the package's entries, and entries that come from outside it.

A table maps a name to a lightweight row. A user adds a row in Python by a plain call, on the command line by
``module:Name``. Only names that a user types are ever imported: a run folder, an evaluation or a config file holds
names as text, and no name in a file causes an import.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from sdclr.errors import ConfigError
from sdclr.safe_text import shown


def plain_name(text: str) -> str:
    """The name by which ``text``, "module:Name", is registered.

    >>> plain_name("my.views:Both.Noise")
    'noise'
    """
    return text.rpartition(":")[2].rpartition(".")[2].lower()


class Row(Protocol):
    """The common part of all rows of tables."""

    @property
    def name(self) -> str:
        """The name on the command line, in settings and in files."""

    @property
    def origin(self) -> str:
        """ "module:Name" of an entry from outside the package; empty for the package's own."""


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R]):
    """Name -> row, in the order of every list. Entries from outside come last.

    >>> from typing import NamedTuple
    >>> class Fruit(NamedTuple):
    ...     name: str
    ...     origin: str = ""
    >>> fruits = Table("fruit", [Fruit("apple")])
    >>> fruits.add(Fruit("quince", "orchard:Quince"))
    >>> list(fruits)
    ['apple', 'quince']
    """

    def __init__(self, what: str, rows: Iterable[R]) -> None:
        """``what``: the word for an entry in messages, such as "probe"."""
        self.what = what
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> R:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: R) -> None:
        """Add an entry from outside. The same entry may be added again, as notebooks do.

        Raises ConfigError for a name that is not plain or is taken by another entry.
        """
        if not isinstance(row.name, str) or not _PLAIN_NAME.fullmatch(row.name):
            raise ConfigError(
                f"a {self.what} cannot be called {shown(repr(row.name))}: write a small letter, then "
                "small letters, digits and underscores, such as ridge_probe."
            )
        before = self._rows.get(row.name)
        if before is not None and (not before.origin or before.origin != row.origin):
            holder = before.origin or "sdclr itself"
            raise ConfigError(
                f"there is a {self.what} {row.name!r} already, from {shown(holder)}; "
                f"give {shown(row.origin)} another name."
            )
        self._rows[row.name] = row

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Entries added inside the block are removed at its end: for tests and examples."""
        before = dict(self._rows)
        try:
            yield
        finally:
            self._rows = before

    def require(self, name: str) -> R:
        """The row of this name. Raises ConfigError that lists the names."""
        if name in self._rows:
            return self._rows[name]
        raise ConfigError(f"there is no {self.what} {shown(repr(name))}. {self.choice(name)}")

    def choice(self, name: str = "") -> str:
        """Sentences that help with a name that is not in the table."""
        close = difflib.get_close_matches(name, self._rows, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        return f"{meant}There are {', '.join(self._rows)}; one of your own is named as module:Name."


_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OUTSIDE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_outside(text: str) -> bool:
    """Whether a word on the command line names something outside the package.

    >>> is_outside("my_package.probes:Ridge"), is_outside("knn")
    (True, False)
    """
    return ":" in text


def origin_of(value: Any) -> str:
    """ "module:Name" of a class or function.

    >>> from fractions import Fraction
    >>> origin_of(Fraction)
    'fractions:Fraction'
    """
    return f"{value.__module__}:{value.__qualname__}"


def load(entry: Any) -> Any:
    """The object that a row of the package names as "module:Name"; the module is imported here and not before.

    A row from outside holds the object itself, as one from a notebook could not be imported by name.

    >>> load("math:sqrt")(9), load(abs)(-9)
    (3.0, 9)
    """
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def summary_of(entry: Any) -> str:
    """The first line of a docstring, for lists; empty where there is none.

    >>> summary_of(summary_of)
    'The first line of a docstring, for lists; empty where there is none.'
    """
    return (entry.__doc__ or "").strip().partition("\n")[0]


def load_outside(text: str, what: str, problem: Callable[[Any], str]) -> Any:
    """Import ``module:Name`` as a user typed it on the command line.

    The module is searched on Python's path and, if it is not there, in the current folder. ``what``: what it has to be,
    such as "probe". ``problem``: what keeps the object from being one, in words; empty where nothing does. Raises
    ConfigError where the text is not such a name, where the module or the name in it does not exist, where the import
    fails, and for an object of another kind.

    >>> load_outside("math:sqrt", "function", lambda found: "")
    <built-in function sqrt>
    """
    if not _OUTSIDE.fullmatch(text):
        raise ConfigError(
            f"cannot read {shown(repr(text))} as a {what}; write module:Name, such as my_package.{what}s:Mine."
        )
    module_name, _, path = text.partition(":")
    if module_name.endswith(".py"):
        module = module_name.removesuffix(".py")
        raise ConfigError(
            f"{shown(text)}: write the module without .py, {shown(f'{module}:{path}')}."
        )
    found = _import(module_name, what)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{shown(module_name)} has no {shown(path)}.{_meant(part, found)}")
        found = getattr(found, part)
    if trouble := problem(found):
        raise ConfigError(f"{shown(text)} is not a valid {what}: {trouble}.")
    return found


def _meant(part: str, owner: Any) -> str:
    close = difflib.get_close_matches(part, dir(owner), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _import(name: str, what: str) -> Any:
    here = os.getcwd()
    added = not _is_found(name.partition(".")[0])
    if added:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {shown(error.name)} (for the {what}): neither where Python "
                f"looks, nor in the current folder {shown(here)}. Install it, or set PYTHONPATH to "
                "the folder that holds it."
            ) from None
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:  # a script ends Python when it is imported
        raise _failed(name, error) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _is_found(name: str) -> bool:
    """Whether Python finds a module without the current folder."""
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _failed(name: str, error: BaseException) -> ConfigError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = ""  # its message says it
    return ConfigError(
        f"module {shown(name)} cannot be imported: {type(error).__name__}: {shown(error)}{shown(where)}."
    )
