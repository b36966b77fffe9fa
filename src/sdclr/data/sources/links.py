"""Links below the root of a collection that lead out of it: refused, unless links may lead anywhere.

Otherwise a folder or list from somebody else could have any image of yours decoded. Opens no file: a folder is listed
once, and its files are checked only where it has links. Broken links are left to the code that reads them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sdclr.data.choices import Links
from sdclr.data.decoding.decode import printable
from sdclr.errors import DataError


class _Folder(NamedTuple):
    is_inside: bool
    may_hold_links: bool


class LinkCheck:
    """Finds the links below one root that lead out of it; none are reported where links may lead anywhere."""

    def __init__(self, root: Path | str, links: Links) -> None:
        self.root = root
        self._refuses = links == "inside"
        self._real_root = os.path.realpath(root)
        self._folders: dict[str, _Folder] = {}
        self._real_folder = functools.cache(_real_path)  # many links lead to one folder

    def refuse_ways_out(self, paths: Sequence[str], where: Callable[[int], str]) -> None:
        """DataError if one of ``paths`` below the root is elsewhere; ``where(row)``: the line that names it."""
        if not self._refuses:
            return
        out = {
            row: end
            for row, path in enumerate(paths)
            if (end := self._end_of_file(path)) is not None
        }
        if out:
            row, end = next(iter(out.items()))
            raise self.refusal(f"{where(row)}: {printable(paths[row])}", end, len(out))

    def refusal(self, first: str, end: str, number: int) -> DataError:
        """The error for ``first``, which leads to ``end`` and is one of ``number``."""
        more = f" ({number - 1} more links do so)" if number > 1 else ""
        return DataError(
            f"{first} leads through a link out of {printable(self.root)}, to {printable(end)}{more}. Put the images "
            "themselves there, or use data.links=anywhere if links may lead out."
        )

    def end_of_link(self, link: str) -> str | None:
        """Where a link to a file or folder ends, if outside; None if it ends inside, is broken or is not a link."""
        if not self._refuses:
            return None
        try:
            folder, name = os.path.split(os.readlink(link))
            end = os.path.join(self._real_folder(os.path.join(os.path.dirname(link), folder)), name)
            if name in ("", ".", "..") or os.path.islink(end):
                end = _real_path(link)
            if self._is_inside(end):
                return None
            os.stat(link)
        except OSError:
            return None
        return end

    def _end_of_file(self, path: str) -> str | None:
        """Where a file below the root really is, if outside."""
        parent = path.rpartition("/")[0]
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._folders[parent] = self._look_at(os.path.join(self.root, parent))
        if folder.is_inside and not folder.may_hold_links:
            return None
        file = os.path.join(self.root, path)
        if os.path.islink(file):
            return self.end_of_link(file)
        return None if folder.is_inside or not os.path.exists(file) else os.path.realpath(file)

    def _look_at(self, folder: str) -> _Folder:
        try:
            is_inside = self._is_inside(_real_path(folder))
        except OSError:
            # missing: reading its files raises the error
            return _Folder(is_inside=True, may_hold_links=True)
        try:
            with os.scandir(folder) as entries:
                # check all entries, not only the listed ones: a file system may take A.jpg for a.jpg
                return _Folder(is_inside, any(entry.is_symlink() for entry in entries))
        except OSError:  # it may be traversed, but not listed
            return _Folder(is_inside, may_hold_links=True)

    def _is_inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(os.path.join(self._real_root, ""))


def _real_path(path: str) -> str:
    # OSError for broken or circular links, which realpath would resolve to something
    os.stat(path)
    return os.path.realpath(path)
