"""Which files the entries of a list mean, where a name is written in another form than on the disk.

One letter (é) may be written as one character or as two (NFC, NFD; macOS and some archives write the latter), and
tables pad their fields with spaces. An entry whose file is there as it is written is never changed. Opens no file.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sdclr.safe_text import csv_cell


class MatchedNames(NamedTuple):
    """The entries of a list as their files are called."""

    paths: list[str]
    num_padded: int
    """Entries without whose outer spaces the file was found."""
    num_normalised: int
    """Entries whose letters the file's name writes in another form."""

    def remarks(self) -> list[str]:
        parts = {
            "names of a list whose outer spaces were dropped, as no file has them": self.num_padded,
            "names of a list whose letters the file system writes in another form (NFC, NFD), matched": (
                self.num_normalised
            ),
        }
        return [f"{what}: {num}" for what, num in parts.items() if num]


def match_names(root: Path, paths: Sequence[str]) -> MatchedNames:
    """The entries ``paths`` below ``root``; one that no file has in any form stays as it is written."""
    names, found = _Names(root), list[str]()
    num_padded = num_normalised = 0
    for path in paths:
        bare = path.strip()
        if names.has(path):
            found.append(path)
        elif names.has(guarded := str(csv_cell(path))):  # its own apostrophe was taken for a guard
            found.append(guarded)
        elif bare != path and names.has(bare):
            found.append(bare)
            num_padded += 1
        elif (other := names.other_form(bare)) is not None:
            found.append(other)
            num_normalised += 1
        else:
            found.append(path)
    return MatchedNames(found, num_padded, num_normalised)


class _Names:
    """The names below a folder, every folder listed once and only when it is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, frozenset[str]] = {}
        self._by_form: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {"": ""}

    def has(self, path: str) -> bool:
        """Whether a file is there under this very name, or the file system says that it is."""
        folder, name = posixpath.split(path)
        return name in self._names(folder) or os.path.lexists(os.path.join(self._root, path))

    def other_form(self, path: str) -> str | None:
        """The path whose letters are the same in another form, if there is one alone."""
        if path.isascii():
            return None
        folder, name = posixpath.split(path)
        if (there := self._folder(folder)) is None:
            return None
        actual = self._forms(there).get(unicodedata.normalize("NFC", name))
        return posixpath.join(there, actual) if actual else None

    def _folder(self, folder: str) -> str | None:
        if folder not in self._folders:
            there = os.path.isdir(os.path.join(self._root, folder))
            self._folders[folder] = folder if there else self.other_form(folder)
        return self._folders[folder]

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(os.path.join(self._root, folder)))
            except (OSError, ValueError):  # not there, or it may be passed through and not listed
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _forms(self, folder: str) -> dict[str, str]:
        """Names by their NFC form; an empty text for a form that several names have."""
        if folder not in self._by_form:
            forms: dict[str, str] = {}
            for name in self._names(folder):
                form = unicodedata.normalize("NFC", name)
                forms[form] = "" if form in forms else name
            self._by_form[folder] = forms
        return self._by_form[folder]
