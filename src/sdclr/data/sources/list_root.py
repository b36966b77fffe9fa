"""Whether the paths of a list exist below its root, and below which other folder they do.

Checks the first files and, where none of them exists, folders nearby.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from sdclr.data.decoding.decode import printable
from sdclr.data.sources.image_lists import ListedImages
from sdclr.data.sources.listed_names import match_names
from sdclr.errors import MissingInputError
from sdclr.safe_text import command, shown

FILES_LOOKED_FOR = 64
"""Entries of a list for which another root is searched, where none of them exists."""
FOLDERS_LOOKED_INTO = 500
"""The most folders that are listed in the search, each up to ENTRIES_LOOKED_AT entries."""
ENTRIES_LOOKED_AT = 10_000


def require_right_root(listed: ListedImages, given: Path | None) -> None:
    """MissingInputError that asks for data.root where no listed file is below the root, and names the folder if found.

    That may be the working directory, which most programs resolve paths against. ``given``: the root; None: the list's
    own folder.
    """
    root = listed.file.parent if given is None else given
    sample = listed.paths[:FILES_LOOKED_FOR]
    if any(_is_there(root, path) for path in sample):
        return
    begin, add = ("data.root", "Give") if given is not None else ("the list's own folder", "Add")
    first = f"{listed.where(0)}: {printable(sample[0])} is not in {printable(root)}, {begin}"
    if (place := _folder_above(sample, root)) is not None:
        here = " (where this command runs)" if place == Path.cwd() else ""
        raise MissingInputError(
            f"{first}, but it is in {shown(place)}{here}. {add} {command(f'data.root={place}')} to the command."
        )
    if not any(_is_there(root, path) for path in listed.paths[FILES_LOOKED_FOR:]):
        others = (
            f", nor is any other of its {len(listed.paths)} images" if len(listed.paths) > 1 else ""
        )
        raise MissingInputError(
            f"{first}{others}. {add} data.root=FOLDER, where its paths begin, to the command."
        )


def _is_there(folder: Path, path: str) -> bool:
    """Whether a file exists as the list writes it, or as it is meant where it has a backslash."""
    name = match_names(folder, [path]).paths[0] if "\\" in path else path
    return os.path.lexists(folder / name)


def _folder_above(sample: list[str], root: Path) -> Path | None:
    """The nearest folder below which most of these files are: here, next to the list, or a few folders down from these.

    Lists at most FOLDERS_LOOKED_INTO folders.
    """
    beside = Path(os.path.realpath(root))
    places = list(dict.fromkeys([Path.cwd(), beside.parent, beside]))
    # grows while it is iterated over: the nearest come first
    for number, place in enumerate(places):
        found = sum(_is_there(place, path) for path in sample)
        if 2 * found > len(sample):
            return place
        if number < FOLDERS_LOOKED_INTO and len(places) < FOLDERS_LOOKED_INTO:
            places += sorted(_folders_in(place).difference(places))
    return None


def _folders_in(place: Path) -> set[Path]:
    """Folders that are not hidden, among the first entries."""
    try:
        with os.scandir(place) as entries:
            first = islice(entries, ENTRIES_LOOKED_AT)
            return {
                Path(one.path)
                for one in first
                if one.name[0] != "." and one.is_dir(follow_symlinks=False)
            }
    except OSError:
        return set()
