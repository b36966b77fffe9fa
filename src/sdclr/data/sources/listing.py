"""Which image files are below a folder, from the folders alone: no file is opened, and no state of a file read.

Outputs of sdclr itself, whole run folders and the dry run's sheets of views, are left out. Only files with the name of
a sheet are opened.

The order is that of the bytes of the relative paths, on every machine. Names may hold anything a file system allows;
undecodable bytes survive as surrogates (surrogateescape).
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sdclr.data.choices import Links
from sdclr.data.decoding.decode import READS_HEIF, printable
from sdclr.data.sources.exclusion import Exclusion, is_service_folder
from sdclr.data.sources.globs import Glob
from sdclr.data.sources.links import LinkCheck
from sdclr.errors import DataError, MissingInputError
from sdclr.run.files import RUN_FILES, looks_like_a_run

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Photographs from phones; they are images where the extra heif is installed."""
IMAGE_SUFFIXES = (
    *(".jpeg", ".jpg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".avif"),
    *(HEIF_SUFFIXES if READS_HEIF else ()),
)
OTHER_PICTURES = (
    *(() if READS_HEIF else HEIF_SUFFIXES),
    *(".jxl", ".jp2", ".psd", ".dng"),
    *(".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".pef", ".srw"),
)
"""Suffixes of pictures that cannot be read here: HEIC and HEIF without their extra, newer formats, raw files."""

SHEET_ENDING = "-views.png"
SHEET_MARK, SHEET_MARK_WITHIN = b"sdclr views", 512
"""In the text of a sheet's PNG (:mod:`sdclr.presentation.sheet`), which comes before its pixels."""


class Listing(NamedTuple):
    """The image files below a folder, and how much was left out."""

    paths: list[str]
    """Relative, with / between folders, in the order of their bytes."""
    num_other: int
    """Files that are not images by their name, and pipes, sockets and devices."""
    num_hidden: int
    """Files and folders whose name begins with a dot; the contents of such folders are not counted."""
    num_excluded: int
    """Folders left out on request."""
    num_ours: int = 0
    """Run folders, and sheets of views."""
    num_service: int = 0
    """Folders with the thumbnails, previews and trash of servers and systems; they are not entered."""
    first_service: str = ""
    """The first of them."""
    num_unwanted: int = 0
    """Files and folders that the user's globs match; such folders are not entered."""
    pictures: tuple[tuple[str, int], ...] = ()
    """The suffixes of pictures that cannot be read, each with the number of files; these are not in ``num_other``."""

    def remarks(self) -> list[str]:
        """What was left out, a phrase for each kind."""
        return other_pictures(dict(self.pictures)) + self._counts()

    def _counts(self) -> list[str]:
        service = (
            f"folders of thumbnails, previews or trash (first: {printable(self.first_service)})"
        )
        parts = {
            "files that are not images": self.num_other,
            "hidden files and folders": self.num_hidden,
            "excluded folders": self.num_excluded,
            "outputs of sdclr (run folders, sheets of views)": self.num_ours,
            service: self.num_service,
            "files and folders that data.exclude matches": self.num_unwanted,
        }
        return [f"{what} left out: {num}" for what, num in parts.items() if num]


def other_pictures(counts: dict[str, int]) -> list[str]:
    """A remark on pictures that cannot be read, if there are any; ``counts`` by suffix."""
    if not counts:
        return []
    kinds = ", ".join(f"{num} {suffix}" for suffix, num in sorted(counts.items()))
    is_heif = bool(counts.keys() & set(HEIF_SUFFIXES))
    heic = " (HEIC/HEIF)" if is_heif else ""
    install = ', or pip install "sdclr[heif]" for HEIC' if is_heif else ""
    return [
        f"pictures of a kind that cannot be read{heic} left out: {kinds}; convert them to JPEG or PNG to use them"
        f"{install}"
    ]


def list_images(
    root: Path | str,
    exclude: Iterable[Path | str] = (),
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    links: Links = "inside",
    unwanted: Exclusion | None = None,
    glob: Glob | None = None,
) -> Listing:
    """Every image file below ``root`` by its suffix, the folders in ``exclude`` and what is ``unwanted`` left out.

    So are the folders in which servers and systems keep thumbnails and trash; ``root`` itself may be one.

    A link to a file counts as a file, broken or not: reading it shows which. A folder is entered once, under its own
    name rather than a link's, so loops of links end. Raises MissingInputError for an absent folder and DataError for
    one that may not be listed and, unless ``links`` may lead anywhere, for a link that leads out of ``root``, if
    ``glob`` could match it or something below it.
    """
    walk = _Walk(root, exclude, suffixes, links, unwanted or Exclusion(), glob)
    folders, linked_folders = [""], list[str]()
    while folders or linked_folders:
        if not folders:  # all real folders are entered before the first link is followed
            linked_folders.sort(key=os.fsencode, reverse=True)
            folders.append(linked_folders.pop())
        prefix = folders.pop()
        if (found := walk.enter(prefix)) is not None:
            folders += found.folders
            linked_folders += found.linked_folders
    return walk.listing()


class _Walk:
    """What was found below a root so far, and what was left out."""

    def __init__(
        self,
        root: Path | str,
        exclude: Iterable[Path | str],
        suffixes: tuple[str, ...],
        links: Links,
        unwanted: Exclusion,
        glob: Glob | None,
    ) -> None:
        self._root, self._suffixes, self._unwanted = root, suffixes, unwanted
        self._glob = glob
        self._excluded = {_identity(folder) for folder in exclude if os.path.isdir(folder)}
        self._seen: set[tuple[int, int]] = set()
        self._links = LinkCheck(root, links)
        self._ways_out: dict[str, str] = {}
        self._paths: list[str] = []
        self._services: list[str] = []
        self._pictures = Counter[str]()
        self._num_other = self._num_hidden = self._num_excluded = 0
        self._num_ours = self._num_unwanted = 0

    def enter(self, prefix: str) -> _Folder | None:
        """Add the images of a folder; None for one that was entered before or is left out."""
        if not self._is_entered(prefix):
            return None
        found = _read_folder(self._root, prefix, self._suffixes, self._unwanted)
        if prefix and found.is_run:
            self._num_ours += 1
            return None
        sheets = {path for path in found.images if _is_sheet(os.path.join(self._root, path))}
        self._num_ours += len(sheets)
        self._paths += [path for path in found.images if path not in sheets]
        for path in found.linked_images:
            if self._glob is None or self._glob.matches(path):
                self._leads_out(path, path)
        self._num_other += found.num_other
        self._num_hidden += found.num_hidden
        self._num_unwanted += found.num_unwanted
        self._pictures.update(found.pictures)
        return found

    def _is_entered(self, prefix: str) -> bool:
        identity = _identity(os.path.join(self._root, prefix))
        if identity in self._seen:
            return False
        self._seen.add(identity)
        if identity in self._excluded:
            self._num_excluded += 1
            return False
        if not prefix:
            return True
        name = prefix[:-1]
        if is_service_folder(name):
            self._services.append(name)
            return False
        if name in self._unwanted:
            self._num_unwanted += 1
            return False
        # one that leads out is not entered: it may be the whole disk
        if self._glob is not None and not self._glob.may_match_below(name):
            return self._links.end_of_link(os.path.join(self._root, name)) is None
        return not self._leads_out(name, prefix)

    def _leads_out(self, path: str, name: str) -> bool:
        """Whether a link leads out of the root; if so, its end is kept under ``name``."""
        end = self._links.end_of_link(os.path.join(self._root, path))
        if end is not None:
            self._ways_out[name] = end
        return end is not None

    def listing(self) -> Listing:
        """The whole listing; DataError where a link leads out."""
        if self._ways_out:
            first = min(self._ways_out, key=os.fsencode)
            place = printable(os.path.join(self._root, first))
            raise self._links.refusal(place, self._ways_out[first], len(self._ways_out))
        return Listing(
            sorted(self._paths, key=os.fsencode),
            self._num_other,
            self._num_hidden,
            self._num_excluded,
            self._num_ours,
            num_service=len(self._services),
            first_service=min(self._services, key=os.fsencode, default=""),
            num_unwanted=self._num_unwanted,
            pictures=tuple(sorted(self._pictures.items())),
        )


class _Folder(NamedTuple):
    """The contents of one folder; names are relative to the root, those of folders end in /."""

    images: list[str]
    linked_images: list[str]
    """Those of ``images`` that are links."""
    folders: list[str]
    linked_folders: list[str]
    """Links to folders."""
    num_other: int
    num_hidden: int
    is_run: bool
    """Whether it is a run folder of sdclr."""
    num_unwanted: int
    """Images."""
    pictures: list[str]
    """The suffix of every picture that cannot be read."""


def _read_folder(
    root: Path | str, prefix: str, suffixes: tuple[str, ...], unwanted: Exclusion
) -> _Folder:
    images, linked_images, folders, linked_folders = (
        list[str](),
        list[str](),
        list[str](),
        list[str](),
    )
    num_other = num_hidden = num_unwanted = 0
    others, pictures = set[str](), list[str]()
    where = os.path.join(root, prefix)
    try:
        for entry in _entries_of(where):
            name, is_link = entry.name, entry.is_symlink()
            if name.startswith("."):
                num_hidden += 1
            elif os.path.isdir(entry) if is_link else entry.is_dir():
                # a link may lead to itself
                (linked_folders if is_link else folders).append(f"{prefix}{name}/")
            elif name.lower().endswith(suffixes) and (is_link or entry.is_file()):
                if prefix + name in unwanted:
                    num_unwanted += 1
                    continue
                images.append(prefix + name)
                if is_link:
                    linked_images.append(prefix + name)
            elif name.lower().endswith(OTHER_PICTURES) and prefix + name not in unwanted:
                pictures.append(os.path.splitext(name)[1].lower())
            else:
                num_other += 1
                if name in RUN_FILES:
                    others.add(name)
    except OSError as error:
        raise _cannot_be_listed(where, error) from None
    is_run = looks_like_a_run(others)
    return _Folder(
        images,
        linked_images,
        folders,
        linked_folders,
        num_other,
        num_hidden,
        is_run,
        num_unwanted,
        pictures,
    )


def _entries_of(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_sheet(path: str) -> bool:
    """Whether a file is a sheet of views that a dry run has written, by its name and its mark."""
    if not path.endswith(SHEET_ENDING):
        return False
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return SHEET_MARK in file.read(SHEET_MARK_WITHIN)
    return False


def _identity(folder: Path | str) -> tuple[int, int]:
    """Device and inode, which identify a folder whatever its name."""
    try:
        state = os.stat(folder)
    except OSError as error:
        raise _cannot_be_listed(folder, error) from None
    return state.st_dev, state.st_ino


def _cannot_be_listed(folder: Path | str, error: OSError) -> MissingInputError | DataError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return MissingInputError(f"image folder {printable(Path(folder))} does not exist.")
    return DataError(f"image folder {printable(Path(folder))} cannot be listed: {error.strerror}.")
