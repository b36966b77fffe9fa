"""Which image files lie below a folder, from the folders alone: no file is opened or asked for its state.

What sdclr has written there itself, whole run folders and the dry run's sheets of views, is left out. A sheet is the
one kind of file that is opened, where its name is that of a sheet.

The order is that of the bytes of the relative paths, on every machine. Names may hold anything a file system allows;
bytes that are no text survive as surrogates (surrogateescape).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sdclr.data.decode import printable
from sdclr.data.links import Fence, Links
from sdclr.errors import DataError, MissingInputError
from sdclr.run import RUN_FILES, looks_like_a_run

IMAGE_SUFFIXES = (
    *(".jpeg", ".jpg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".avif"),
)


SHEET_ENDING = "-views.png"
SHEET_MARK, SHEET_MARK_WITHIN = b"sdclr views", 512
"""In the text of a sheet's PNG (:mod:`sdclr.presentation.sheet`), which comes before its pixels."""


class Listing(NamedTuple):
    """The image files below a folder, and how much was left out."""

    paths: list[str]
    """Relative, with / between folders, in the order of their bytes."""
    num_other: int
    """Files that are no images by their name, and what is no file: pipes, sockets, devices."""
    num_hidden: int
    """Files and folders whose name begins with a dot; what such folders hold is not counted."""
    num_excluded: int
    """Folders left out because they were to be."""
    num_ours: int = 0
    """Run folders, and sheets of views."""

    def remarks(self) -> list[str]:
        """What was left out, one phrase each."""
        parts = {
            "files that are no images": self.num_other,
            "hidden files and folders": self.num_hidden,
            "excluded folders": self.num_excluded,
            "outputs of sdclr (run folders, sheets of views)": self.num_ours,
        }
        return [f"{what} left out: {num}" for what, num in parts.items() if num]


def list_images(
    root: Path | str,
    exclude: Iterable[Path | str] = (),
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    links: Links = "inside",
) -> Listing:
    """Every image file below ``root`` by its suffix, the folders in ``exclude`` left out.

    A link to a file counts as a file, broken or not: that shows when it is read. A folder is entered once, under its
    own name rather than a link's: loops of links end. Raises MissingInputError for an absent folder and DataError for
    one that may not be listed, and unless ``links`` may lead anywhere for one that leads out of ``root``.
    """
    fence, ways_out = Fence(root, links), dict[str, str]()
    excluded = {_identity(folder) for folder in exclude if os.path.isdir(folder)}
    seen: set[tuple[int, int]] = set()
    paths: list[str] = []
    num_other = num_hidden = num_excluded = num_ours = 0
    folders, linked_folders = [""], list[str]()
    while folders or linked_folders:
        if not folders:  # every folder proper was entered before the first link is followed
            linked_folders.sort(key=os.fsencode, reverse=True)
            folders.append(linked_folders.pop())
        prefix = folders.pop()
        identity = _identity(os.path.join(root, prefix))
        if identity in seen:
            continue
        seen.add(identity)
        if identity in excluded:
            num_excluded += 1
            continue
        if prefix and (end := fence.end_of_link(os.path.join(root, prefix[:-1]))) is not None:
            ways_out[prefix] = end  # and is not entered: it may be the whole disk
            continue
        found = _read_folder(root, prefix, suffixes)
        if prefix and found.is_run:
            num_ours += 1
            continue
        sheets = {path for path in found.images if _is_sheet(os.path.join(root, path))}
        num_ours += len(sheets)
        paths += [path for path in found.images if path not in sheets]
        folders += found.folders
        linked_folders += found.linked_folders
        for path in found.linked_images:
            if (end := fence.end_of_link(os.path.join(root, path))) is not None:
                ways_out[path] = end
        num_other += found.num_other
        num_hidden += found.num_hidden
    if ways_out:
        first = min(ways_out, key=os.fsencode)
        raise fence.refusal(printable(os.path.join(root, first)), ways_out[first], len(ways_out))
    paths.sort(key=os.fsencode)
    return Listing(paths, num_other, num_hidden, num_excluded, num_ours)


class _Folder(NamedTuple):
    """What one folder holds; names are relative to the root, those of folders end in /."""

    images: list[str]
    linked_images: list[str]
    """Those of ``images`` that are links."""
    folders: list[str]
    linked_folders: list[str]
    """Links to folders."""
    num_other: int
    num_hidden: int
    is_run: bool
    """Whether it is the folder of a run of ours."""


def _read_folder(root: Path | str, prefix: str, suffixes: tuple[str, ...]) -> _Folder:
    images, linked_images, folders, linked_folders = list[str](), list[str](), list[str](), list[str]()
    num_other = num_hidden = 0
    others = set[str]()
    where = os.path.join(root, prefix)
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                name, is_link = entry.name, entry.is_symlink()
                if name.startswith("."):
                    num_hidden += 1
                elif os.path.isdir(entry) if is_link else entry.is_dir():  # a link may lead to itself
                    (linked_folders if is_link else folders).append(f"{prefix}{name}/")
                elif name.lower().endswith(suffixes) and (is_link or entry.is_file()):
                    images.append(prefix + name)
                    if is_link:
                        linked_images.append(prefix + name)
                else:
                    num_other += 1
                    if name in RUN_FILES:
                        others.add(name)
    except OSError as error:
        raise _cannot_be_listed(where, error) from None
    is_run = looks_like_a_run(others)
    return _Folder(images, linked_images, folders, linked_folders, num_other, num_hidden, is_run)


def _is_sheet(path: str) -> bool:
    """Whether a file is a sheet of views that a dry run has written, by its name and by its mark."""
    if not path.endswith(SHEET_ENDING):
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return SHEET_MARK in file.read(SHEET_MARK_WITHIN)
    return False


def _identity(folder: Path | str) -> tuple[int, int]:
    """Device and inode: one folder, whatever it is called."""
    try:
        state = os.stat(folder)
    except OSError as error:
        raise _cannot_be_listed(folder, error) from None
    return state.st_dev, state.st_ino


def _cannot_be_listed(folder: Path | str, error: OSError) -> MissingInputError | DataError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return MissingInputError(f"image folder {printable(Path(folder))} does not exist.")
    return DataError(f"image folder {printable(Path(folder))} cannot be listed: {error.strerror}.")
