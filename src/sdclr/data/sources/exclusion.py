"""What is left out of a collection by its name: folders that photo servers and systems keep, and globs of the user.

Uses names alone. The caller counts what is left out.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import unicodedata
from collections.abc import Iterable

from sdclr.safe_text import shown

SERVICE_FOLDERS = (
    *("@eaDir", "#recycle", "#snapshot", "@sharebin", "@tmp", "@SynoResource"),  # Synology
    *("@Recycle", "@Recently-Snapshot", "@__thumb"),  # QNAP
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information"),  # Windows
    *("__MACOSX", "Network Trash Folder", "Temporary Items", "lost+found"),  # macOS, ext4
    *("*.lrdata", "*.cocatalog/Cache", "CaptureOne/Cache"),  # previews of Lightroom and Capture One
    *("*.photoslibrary/resources", "*.photoslibrary/Thumbnails", "*.photolibrary/Thumbnails"),
    *(
        "*.aplibrary/Thumbnails",
        "*.aplibrary/Previews",
    ),  # Aperture; the three are packages of macOS
    "appdata_*/preview",  # Nextcloud
)
"""Thumbnails, previews, snapshots and trash: the last parts of a folder's path; case does not matter.

Names that users may give to their own folders, such as thumbs or cache, are not among them.
"""
_SERVICE = re.compile("|".join(fnmatch.translate(name.lower()) for name in SERVICE_FOLDERS))
LONGEST_PATH = 4096
"""The most characters of a path that a system accepts; a tar member's name may be longer, with many folders."""


def is_service_folder(path: str) -> bool:
    """Whether a folder, by its path with / between folders, is one of SERVICE_FOLDERS."""
    return _is_service(path.split("/"))


def _is_service(parts: list[str]) -> bool:
    """``parts``: the names on the path to a folder; only the last two matter."""
    last = parts[-1].lower()
    return bool(
        _SERVICE.fullmatch(last)
        or (len(parts) > 1 and _SERVICE.fullmatch(f"{parts[-2].lower()}/{last}"))
    )


def is_in_service_folder(path: str) -> bool:
    """Whether a file is in one of SERVICE_FOLDERS, at any depth."""
    parts = path.split("/")[:-1]
    return any(_is_service(parts[max(depth - 1, 0) : depth + 1]) for depth in range(len(parts)))


def is_hidden(path: str) -> bool:
    """Whether the name of a file, or that of a folder above it, begins with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def glob_problem(glob: str) -> str | None:
    """Why a glob cannot match any path below a folder; None if it can."""
    if not glob.strip().strip("/"):
        return "an empty glob matches nothing"
    if glob.startswith(("/", "~")) or ".." in glob.split("/"):
        return f"{shown(glob, 80)!r} leads out of the folder; globs are relative to it, such as 'thumbs/*'"
    if "\\" in glob:
        return f"a backslash in {shown(glob, 80)!r}; / goes between folders"
    return None


class Exclusion:
    """Globs for what is to be left out, and which of them have matched something.

    A glob is matched against the relative path, the path of every folder above it, and the name of each of these. ``*``
    matches / as well; case matters; Unicode forms of one letter (é) are equal.
    """

    def __init__(self, globs: Iterable[str] = ()) -> None:
        self._patterns = {glob: _pattern(glob) for glob in globs}
        self._folders: dict[str, bool] = {"": False}
        self._unused = dict.fromkeys(self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __contains__(self, path: str) -> bool:
        """Whether a file or folder is to be left out."""
        if not self._patterns:
            return False
        parent = path.rpartition("/")[0]
        known = self._folders.get(parent)
        if known is None:
            known = self._is_excluded_folder(parent)
            if len(parent) <= LONGEST_PATH:
                self._folders[parent] = known
        return known or self._matches(path)

    def _is_excluded_folder(self, folder: str) -> bool:
        """Whether a glob matches a folder or one above it."""
        if len(folder) > LONGEST_PATH:
            return any(map(self._matches, {folder, *folder.split("/")}))
        parts = folder.split("/")
        return any(self._matches("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))

    def _matches(self, path: str) -> bool:
        path = unicodedata.normalize("NFC", path)
        name = posixpath.basename(path)
        matching = [
            glob
            for glob, one in self._patterns.items()
            if one.fullmatch(path) or one.fullmatch(name)
        ]
        for glob in matching:
            self._unused.pop(glob, None)
        return bool(matching)

    def unused(self) -> list[str]:
        """The globs that have matched nothing so far."""
        return list(self._unused)


def _pattern(glob: str) -> re.Pattern[str]:
    text = posixpath.normpath(unicodedata.normalize("NFC", glob))  # ./a/ is a
    globs = {text, text.removeprefix("**/")}  # at any depth, the first included
    return re.compile("|".join(map(fnmatch.translate, sorted(globs))))
