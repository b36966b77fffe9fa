"""A glob as a collection: 'photos/**/*.jpg' is the folder photos and a rule for the paths below it.

``*`` and ``?`` match within one name, ``**`` any number of folders, ``[ab]`` one of these characters; case matters,
Unicode forms of one letter (é) are equal. Opens nothing and lists nothing.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from sdclr.errors import DataError
from sdclr.safe_text import shown

_MAGIC = re.compile(r"[*?\[]")


class Glob(NamedTuple):
    """The folder to search, and which paths in it count."""

    root: Path
    pattern: str
    """Relative to ``root``."""

    def matches(self, path: str) -> bool:
        """Whether a path relative to the root counts. DataError for an invalid glob, such as [z-a]."""
        return _compiled(self.pattern).match(unicodedata.normalize("NFC", path)) is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether a path in a folder, relative to the root, or further below can count."""
        parts = self.pattern.split("/")
        # how many parts the names so far may have used up; ** takes any number of names
        used = {0}
        for name in folder.split("/"):
            used = {after for before in used for after in _used_up(parts, before, name)}
        return any(number < len(parts) for number in used)

    def matching(self, paths: list[str]) -> list[str]:
        """Those of ``paths`` that count, in their order."""
        return list(filter(self.matches, paths))


def glob_of(path: Path) -> Glob | None:
    """The glob of a path with *, ? or [ in it that is not itself a file or folder; None for any other path.

    Raises DataError for a glob that leads out of its folder.
    """
    if not _MAGIC.search(str(path)) or path.exists():
        return None
    parts = path.parts
    first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
    pattern = parts[first:]
    if ".." in pattern:
        raise DataError(
            f"{shown(path)}: .. after the first * leads out of the folder. Write the path itself."
        )
    return Glob(Path(*parts[:first]), "/".join(pattern))


def _used_up(parts: list[str], number: int, name: str) -> list[int]:
    """How many of ``parts`` may be used up after one more name, with ``number`` before it."""
    if number == len(parts):
        return []
    if parts[number] == "**":
        return [number, *_used_up(parts, number + 1, name)]
    return [number + 1] if Glob(Path(), parts[number]).matches(name) else []


@functools.cache
def _compiled(glob: str) -> re.Pattern[str]:
    """Matches the relative paths that count, in NFC. DataError for an invalid glob, such as [z-a]."""
    parts = unicodedata.normalize("NFC", glob).split("/")
    text = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            text += r".*" if last else r"(?:[^/]+/)*"
        else:
            text += _one_name(part) + ("" if last else "/")
    try:
        return re.compile(rf"(?s:{text})\Z")
    except re.error as error:
        raise DataError(f"the glob {shown(glob)} cannot be read: {error}.") from None


def _one_name(part: str) -> str:
    """The pattern of a part between two slashes. Not fnmatch.translate: its * matches a slash, too."""
    text, position = "", 0
    while position < len(part):
        sign = part[position]
        end = part.find("]", position + 2) if sign == "[" else -1
        if end > 0:
            inside = part[position + 1 : end]
            negated, inside = inside.startswith("!"), inside.removeprefix("!")
            text += f"[{'^/' if negated else ''}{_CLASS_SIGNS.sub(_escaped, inside)}]"
            position = end + 1
            continue
        text += {"*": "[^/]*", "?": "[^/]"}.get(sign, re.escape(sign))
        position += 1
    return text


_CLASS_SIGNS = re.compile(r"[\\\[\]^&~|]")


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"
