"""Which files the entries of a list mean, where a name is written in another form than on the disk.

One letter (é) may be written as one character or as two (NFC, NFD; macOS and some archives write the latter), tables
pad their fields with spaces, those of Windows have \\ between folders, and our own write \\xff for an undecodable byte.
An entry whose file exists as written is never changed. Opens no file.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sdclr.safe_text import csv_cell, table_text


class MatchedNames(NamedTuple):
    """The entries of a list by the names of their files."""

    paths: list[str]
    num_padded: int
    """Entries whose file was found after their outer spaces were dropped."""
    num_normalised: int
    """Entries whose letters the file's name writes in another form."""
    num_escaped: int
    """Entries that have escapes for undecodable bytes in the file's name."""
    num_backslashes: int
    """Entries with a backslash between folders."""

    def remarks(self) -> list[str]:
        parts = {
            "names of a list whose outer spaces were dropped, as no file has them": self.num_padded,
            "names of a list whose letters the file system writes in another form (NFC, NFD), matched": (
                self.num_normalised
            ),
            "names of a list with escapes for bytes that are not text, matched": self.num_escaped,
            "names of a list with \\ between folders, read as /": self.num_backslashes,
        }
        return [f"{what}: {num}" for what, num in parts.items() if num]


def match_names(root: Path, paths: Sequence[str]) -> MatchedNames:
    """The entries ``paths`` below ``root``; one that matches no file in any form stays as written."""
    names, found = _Names(root), list[str]()
    num_padded = num_normalised = num_escaped = num_backslashes = 0
    absent: list[int] = []
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
        elif (other := names.unescaped(bare)) is not None:
            found.append(other)
            num_escaped += 1
        elif "\\" in bare and (other := names.any_form(with_slashes(bare))) is not None:
            found.append(other)
            num_backslashes += 1
        else:
            found.append(path)
            absent += [len(found) - 1] if "\\" in bare else []
    # then the other entries of this list, whose files are missing, are meant this way, too
    if num_backslashes:
        for place in absent:
            found[place] = with_slashes(found[place].strip())
        num_backslashes += len(absent)
    return MatchedNames(found, num_padded, num_normalised, num_escaped, num_backslashes)


def with_slashes(path: str) -> str:
    """A path as Windows writes it, with / between folders."""
    return posixpath.normpath(path.replace("\\", "/"))


class _Names:
    """The names below a folder, every folder listed once and only when it is needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, frozenset[str]] = {}
        self._by_form: dict[str, dict[str, str]] = {}
        self._by_text: dict[str, dict[str, str]] = {}
        self._folders: dict[str, str | None] = {"": ""}

    def has(self, path: str) -> bool:
        """Whether a file exists under exactly this name, or the file system accepts the name."""
        folder, name = posixpath.split(path)
        return name in self._names(folder) or os.path.lexists(os.path.join(self._root, path))

    def other_form(self, path: str) -> str | None:
        """The path with the same letters in another form, if there is exactly one."""
        if path.isascii():
            return None
        folder, name = posixpath.split(path)
        if (there := self._folder(folder)) is None:
            return None
        actual = self._forms(there).get(unicodedata.normalize("NFC", name))
        return posixpath.join(there, actual) if actual else None

    def any_form(self, path: str) -> str | None:
        """The path itself where a file has it, else its other form."""
        return path if self.has(path) else self.other_form(path)

    def unescaped(self, path: str) -> str | None:
        """The path that our tables write like this, with escapes for undecodable bytes, if there is exactly one."""
        if "\\" not in path:
            return None
        there = ""
        for part in path.split("/"):
            if not self.has(posixpath.join(there, part)):
                part = self._texts(there).get(part, "")
                if not part:
                    return None
            there = posixpath.join(there, part)
        return there

    def _folder(self, folder: str) -> str | None:
        if folder not in self._folders:
            there = os.path.isdir(os.path.join(self._root, folder))
            self._folders[folder] = folder if there else self.other_form(folder)
        return self._folders[folder]

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(os.path.join(self._root, folder)))
            except (OSError, ValueError):  # missing, or it may be traversed, but not listed
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _forms(self, folder: str) -> dict[str, str]:
        """Names by their NFC form; an empty string for a form that several names share."""
        if folder not in self._by_form:
            self._by_form[folder] = self._names_by(_nfc, folder)
        return self._by_form[folder]

    def _texts(self, folder: str) -> dict[str, str]:
        """Names by the text that our tables write for them; an empty string for a text that several names share."""
        if folder not in self._by_text:
            self._by_text[folder] = self._names_by(table_text, folder)
        return self._by_text[folder]

    def _names_by(self, form: Callable[[str], str], folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self._names(folder):
            written = form(name)
            found[written] = "" if written in found else name
        return found


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
