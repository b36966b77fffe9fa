"""Which images are mined: those listed now, and those of an earlier call.

N images. An image is known if its name, content and modification time are; only the others are processed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdclr.data import Images
from sdclr.data.collections.contents import ABSENT, Content, read_contents
from sdclr.data.rows_wanted import reading
from sdclr.errors import ConfigError
from sdclr.jobs.mine.folder import MineRecord, Stored, StoredWriter
from sdclr.presentation.mined import Rows
from sdclr.safe_text import shown
from sdclr.storage.row_parts import RowParts

BLOCK = 4096
_ADDRESS = re.compile(r"(?:^|/)[A-Za-z][A-Za-z0-9+.-]+:/")
"""Matches the path of an image on another machine, which is a URL turned into a path."""
_BOX = re.compile(r"#[-0-9.,]+$")
"""The suffix in the name of a box, FILE#x,y,width,height."""


@dataclass(frozen=True, eq=False)
class Listed:
    """Images before they are processed."""

    images: Images
    root: str
    """Absolute; empty for images in memory."""
    contents: Sequence[Content]
    """[N], the names and content of their files."""
    reading: dict[str, Any]
    """The settings by which files become pixels, where these can differ."""


@dataclass(frozen=True, eq=False)
class Joined:
    """N images of this and of an earlier call."""

    root: str
    contents: list[Content]
    """[N], with names below ``root``."""
    stored_row: Rows
    """[N], the row in the earlier call; -1 for images that it does not have."""
    listed_row: Rows
    """[N], the row among the listed images; -1 for those that only the earlier call had."""
    own: tuple[tuple[Stored, Rows], ...]
    """Results of earlier calls with the same folder, each with the row [N] there of every image that no source before
    it has, -1 otherwise: for images that are new compared to another collection but were already processed."""
    remarks: tuple[str, ...] = ()

    @property
    def is_in_memory(self) -> bool:
        """Whether the images are not files: then a name is a position, where another image may be next time."""
        return not self.root

    @property
    def is_listed(self) -> npt.NDArray[np.bool_]:
        """[N]"""
        return self.listed_row >= 0

    @property
    def unseen(self) -> Rows:
        """Rows of the listed images to process, in the order of the collection."""
        return self.listed_row[self.is_unseen]

    @property
    def is_unseen(self) -> npt.NDArray[np.bool_]:
        """[N]"""
        unseen: npt.NDArray[np.bool_] = self.stored_row < 0
        for _, rows in self.own:
            unseen = unseen & (rows < 0)
        return unseen


def listed(images: Images) -> Listed:
    """List images by name and content; reads a few KB of each file."""
    if images.files is None:
        pixels = images.looked_at(1, lambda picture: _digest(picture.pixels(0, 0, *picture.size)))
        digests = [digest for _, part in pixels for digest in part]
        contents = [
            Content(name, digest, 0, 0) for name, digest in zip(images.names, digests, strict=True)
        ]
        return Listed(images, "", contents, _reading_in_memory(images))
    root = os.path.realpath(images.files.root)
    return Listed(images, root, read_contents(images.files), reading(images.files))


def _reading_in_memory(images: Images) -> dict[str, Any]:
    """Empty for square images, of which earlier versions made the same stills."""
    are_square = all(height == width for height, width in map(images.size, range(len(images))))
    return {} if are_square else {"stills": "middle square"}


def _digest(pixels: npt.NDArray[np.uint8]) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()


def join(
    now: Listed, stored: Stored | None, *, keep_others: bool, own: Sequence[Stored] = ()
) -> Joined:
    """The listed images, and with ``keep_others`` those that only the earlier call had.

    ``own``: results of calls with the same folder, if that is not the earlier call.

    Earlier images below the root of the listed ones are left out if their files no longer exist. If any others
    remain, all images are ordered by their names below the common folder, as if they had been listed together.
    """
    old = [] if stored is None else stored.contents
    old_root = now.root if stored is None else stored.record.root
    root = _common(now.root, old_root) if keep_others else now.root
    row_of = {_below(root, old_root, one.path): row for row, one in enumerate(old)}
    contents, stored_rows = [], []
    for one in now.contents:
        name = _below(root, now.root, one.path)
        row = row_of.get(name, -1)
        same = row >= 0 and one.digest not in (ABSENT, "") and written(one) == written(old[row])
        contents.append(one._replace(path=name))
        stored_rows.append(row if same else -1)
    listed_rows = list(range(len(contents)))
    remarks: list[str] = []
    if keep_others:
        here = {one.path for one in contents}
        others = [(name, row) for name, row in row_of.items() if name not in here]
        there = [other for other in others if not _is_gone(root, other[0], now.root)]
        if num_gone := len(others) - len(there):
            remarks.append(
                f"{num_gone:,} images of the earlier collection are missing and left out."
            )
        others = there
        contents += [old[row]._replace(path=name) for name, row in others]
        stored_rows += [row for _, row in others]
        listed_rows += [-1] * len(others)
        if others:
            order = sorted(range(len(contents)), key=lambda i: os.fsencode(contents[i].path))
            contents = [contents[i] for i in order]
            stored_rows = [stored_rows[i] for i in order]
            listed_rows = [listed_rows[i] for i in order]
    found = np.array(stored_rows, dtype=np.int64)
    listed_row = np.array(listed_rows, dtype=np.int64)
    unseen, seen_by = found < 0, list[tuple[Stored, Rows]]()
    for one_call in own:
        rows = _rows_of(one_call, root, contents, unseen)
        unseen &= rows < 0
        seen_by.append((one_call, rows))
    return Joined(root, contents, found, listed_row, tuple(seen_by), tuple(remarks))


def _rows_of(
    own: Stored, root: str, contents: Sequence[Content], unseen: npt.NDArray[np.bool_]
) -> Rows:
    """The row of each unseen image [N] in this call, if it has the same file with the same content; -1 otherwise."""
    rows = np.full(len(contents), -1, dtype=np.int64)
    row_of = {
        (_below(root, own.record.root, one.path), *written(one)): row
        for row, one in enumerate(own.contents)
        if one.digest not in (ABSENT, "")
    }
    for place in np.flatnonzero(unseen).tolist():
        one = contents[place]
        rows[place] = row_of.get((one.path, *written(one)), -1)
    return rows


def written(one: Content) -> tuple[str, int]:
    """What identifies a version of a file: the digest alone does not cover every byte."""
    return one.digest, one.mtime_ns


def _common(a: str, b: str) -> str:
    try:
        if a and b:  # names of images in memory do not identify them
            return a if a == b else os.path.commonpath([a, b])
    except ValueError:  # on two drives of Windows
        pass
    raise ConfigError(
        "--against needs two collections of image files with a common folder above them."
    )


def _below(root: str, own_root: str, name: str) -> str:
    """Convert a name relative to ``own_root`` to one relative to ``root``."""
    if root == own_root:
        return name
    return "/".join([*Path(os.path.relpath(own_root, root)).parts, name])


def _is_gone(root: str, name: str, listed_root: str) -> bool:
    """Whether an image that is not listed is below ``listed_root`` and no longer exists.

    An image in an archive counts as missing only if the archive is; one at an address never does.
    """
    path = os.path.join(root, name)
    if not path.startswith(os.path.join(listed_root, "")) or _ADDRESS.search(path):
        return False
    return not _exists(path) and not _exists(_BOX.sub("", path))


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:  # the path leads through a file (an archive), or access is denied
        return True
    return True


def require_same_kind(
    stored: Stored, encoder: str, encoder_name: str, reading: dict[str, Any]
) -> None:
    """Raise ConfigError unless features of this and of the earlier call may be mixed."""
    theirs = stored.record
    if theirs.encoder != encoder:
        raise ConfigError(
            f"--against {shown(stored.folder)} was mined with another backbone "
            f"({shown(theirs.encoder_name)}, {theirs.encoder}), this one is {shown(encoder_name)} "
            f"({encoder}): their features cannot be compared. Use the same one, or mine both "
            "collections again."
        )
    if theirs.reading != reading:
        raise ConfigError(
            f"--against {shown(stored.folder)} read its images with {theirs.reading}, this call "
            f"with {reading}: give the same settings (data.KEY=VALUE)."
        )


def keep(
    folder: Path,
    record: MineRecord,
    joined: Joined,
    known: Sequence[tuple[Stored | None, Rows]],
    parts: RowParts,
) -> Stored:
    """Combine the rows of ``known`` calls and those of ``parts`` in ``folder``, block by block.

    ``known``: the results of each call, and the row [N] there of every image or -1.
    """
    unseen = np.flatnonzero(joined.is_unseen)
    widths = [part["features"].shape[1] for part in parts.parts()]
    widths += [stored.features.shape[1] for stored, _ in known if stored is not None]
    writer, first = StoredWriter(folder, len(joined.contents), widths[0]), 0
    for part in parts.parts():
        writer.put(unseen[first : first + len(part)], part["features"], part["look"])
        first += len(part)
    for stored, row_of in known:
        if stored is None:
            continue
        seen = np.flatnonzero(row_of >= 0)
        for start in range(0, len(seen), BLOCK):
            here = seen[start : start + BLOCK]
            rows = row_of[here]
            writer.put(here, stored.features[rows], stored.looks[rows])
    return writer.finish(record.model_copy(update={"root": joined.root}), joined.contents)
