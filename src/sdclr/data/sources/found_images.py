"""The images that one source of a user's collection names, and their classes by folder. Opens no image.

N images.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sdclr.addresses import Place
from sdclr.data.collections.boxes import Boxes
from sdclr.data.collections.members import Members
from sdclr.data.collections.packed_names import names_at
from sdclr.data.decoding.decode import printable
from sdclr.errors import DataError


class FoundImages(NamedTuple):
    """Image files that one source names."""

    root: Place
    paths: Sequence[str]
    labels: list[str] | None
    """[N], the class of each as text."""
    remarks: list[str]
    members: Members | None = None
    """Where the images are, if in archives."""
    columns: Mapping[str, list[str]] = {}
    """The other columns of a table, [N] each."""
    boxes: Boxes | None = None
    """Which boxes are cut out of which files; ``paths`` are then names of boxes."""
    is_of_turned_pictures: bool = False
    """Whether boxes refer to pictures that were rotated by EXIF."""
    prefix: str = ""
    """The common prefix of all paths before the first folder of the collection."""

    def at(self, rows: list[int]) -> FoundImages:
        """The images of these rows."""
        return self._replace(
            paths=names_at(self.paths, np.array(rows, dtype=np.int64)),
            labels=None if self.labels is None else [self.labels[row] for row in rows],
            members=None
            if self.members is None
            else self.members.at(np.array(rows, dtype=np.int64)),
            columns={name: [cells[row] for row in rows] for name, cells in self.columns.items()},
            boxes=None if self.boxes is None else self.boxes.at(np.array(rows, dtype=np.int64)),
        )

    def files(self) -> Sequence[str]:
        """[N], the file of each, below the root."""
        return self.paths if self.boxes is None else self.boxes.files


class NoClassFoldersError(DataError):
    """The folders of a collection are not classes: no image is in one, or all are in the same."""


def labels_by_folder(
    found: FoundImages, depth: int = 0, left_out: Container[str] = ()
) -> list[str]:
    """The sub-folder of every image, the first or one ``depth`` below it; images that are ``left_out`` need none."""
    where = printable(found.root / found.prefix)
    folders = [path.removeprefix(found.prefix).split("/")[:-1] for path in found.paths]
    outside = [
        path
        for path, parts in zip(found.paths, folders, strict=True)
        if len(parts) <= depth and path not in left_out
    ]
    if outside:
        kind = NoClassFoldersError if len(outside) == len(found.paths) else DataError
        raise kind(
            f"{len(outside)} of {len(found.paths)} images are in no class folder of {where} (first: "
            f"{printable(outside[0])}). Move them into one; or give labels in a table instead, or use data.labels=none."
        )
    labels = [parts[depth] if len(parts) > depth else "" for parts in folders]
    named = {label for label, path in zip(labels, found.paths, strict=True) if path not in left_out}
    if len(named) == 1:
        raise NoClassFoldersError(
            f"{where} has one class folder only, {printable(named.pop())}. Give the folder whose sub-folders "
            "are the classes, or use data.labels=none."
        )
    return labels
