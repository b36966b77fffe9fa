"""Requested labelled sets: a list of images, a number of images per class, or a share of each class.

Everything is validated before any work: an unknown image, one listed twice or held out for validation, and a class with
too few images are errors that name them.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sdclr.data import Data, Images
from sdclr.data.decoding.decode import printable
from sdclr.data.decoding.npy_files import read_npy
from sdclr.data.label_sets import draw_labelled
from sdclr.data.sources.image_lists import ListedImages, read_listed_images
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.jobs.evaluate.choices import Untested
from sdclr.jobs.evaluate.later_labels import positions_of
from sdclr.presentation.details import labelled_title
from sdclr.safe_text import counted, shown

Kind = Literal["labels_per_class", "label_share", "file"]
MOST_SEEDS = 1000


@dataclass(frozen=True)
class LabelSetRequest:
    """The requested sets. Raises ConfigError for invalid values."""

    file: Path | None = None
    per_class: Sequence[int] = ()
    shares: Sequence[float] = ()
    num_seeds: int = 5

    def __post_init__(self) -> None:
        if self.file is None and not self.per_class and not self.shares:
            raise ConfigError(
                "say which images have a label: --few-shot FILE, --labels-per-class N[,N...] or "
                "--label-share P[,P...]."
            )
        for value in self.per_class:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"--labels-per-class must be whole numbers of at least 1, got {value!r}."
                )
        for share in self.shares:
            if not 0 < share <= 1:
                meant = f"; did you mean {share / 100:g}?" if 1 < share <= 100 else "."
                raise ConfigError(
                    f"--label-share must be a fraction in (0, 1], got {share:g}{meant}"
                )
        for flag, values in (("labels-per-class", self.per_class), ("label-share", self.shares)):
            doubled = [one for one in values if list(values).count(one) > 1]
            if doubled:
                raise ConfigError(f"--{flag} has {doubled[0]:g} twice; name each value once.")
        if not 1 <= self.num_seeds <= MOST_SEEDS:
            raise ConfigError(f"--label-seeds must be in 1 .. {MOST_SEEDS}, got {self.num_seeds}.")


class LabelSets(NamedTuple):
    """The sets of one point of the curve."""

    kind: Kind
    value: float | None
    """Images of each class, or share; None for a file."""
    source: str | None
    """The file's name."""
    sha256: str | None
    """Hash of the file's content."""
    sets: list[Positions]
    """Positions in the training pool, ascending; one set per seed, from 1, or a single one if every image is taken."""

    @property
    def title(self) -> str:
        """Its heading in tables."""
        return labelled_title(self.kind, self.value, self.source)


def label_sets(request: LabelSetRequest, data: Data, rule: Untested) -> list[LabelSets]:
    """All requested sets, as positions in the training pool.

    Raises ConfigError or DataError naming the class or image that does not fit.
    """
    split, labels = data.labelled_split(), data.train.labels
    assert labels is not None
    found = []
    if request.file is not None:
        content = _of_file(request.file, data, rule)
        digest = hashlib.sha256(request.file.read_bytes()).hexdigest()
        found.append(LabelSets("file", None, request.file.name, digest, [content]))
    of_pool = labels[split.train]
    counts = np.bincount(of_pool, minlength=len(data.class_names))
    wanted: list[tuple[Kind, float, list[int]]] = [
        ("labels_per_class", n, _of_each(n, counts, data, rule)) for n in request.per_class
    ]
    wanted += [("label_share", share, _share_of_each(share, counts)) for share in request.shares]
    for kind, value, per_class in wanted:
        # if every image is taken, every seed draws the same set, and an interval over them would have width zero
        num_seeds = 1 if per_class == counts.tolist() else request.num_seeds
        drawn = [
            split.train[draw_labelled(of_pool, per_class, seed)] for seed in range(1, num_seeds + 1)
        ]
        found.append(LabelSets(kind, value, None, None, drawn))
    return found


def _of_each(num: int, counts: Positions, data: Data, rule: Untested) -> list[int]:
    """``num`` for every class; 0 for a class without images if such classes are left out."""
    lacking = [c for c in np.flatnonzero(counts < num) if counts[c] or rule == "raise"]
    if lacking:
        smallest = min(lacking, key=lambda c: counts[c])
        raise ConfigError(
            f"--labels-per-class {num}: {len(lacking)} of {len(counts)} classes have fewer training images; "
            f"{data.class_names[smallest]} has {counts[smallest]}. Ask for at most that many."
        )
    return [num if count else 0 for count in counts.tolist()]


def _share_of_each(share: float, counts: Positions) -> list[int]:
    """The share of each class, rounded to the nearest integer, at least one image."""
    per_class = [max(1, math.floor(share * count + 0.5)) if count else 0 for count in counts]
    raised = sum(share * count + 0.5 < 1 for count in counts if count)
    if raised:
        warnings.warn(
            f"--label-share {share:g} is less than half an image of {raised} of {len(counts)} classes; these get "
            "one image each.",
            stacklevel=4,
        )
    return per_class


def _of_file(file: Path, data: Data, rule: Untested) -> Positions:
    """The images that a file lists, as positions in the training pool, ascending."""
    if not file.is_file():
        raise MissingInputError(f"--few-shot {shown(file)} is not a file.")
    if file.suffix.lower() == ".npy":
        positions = _positions_of_npy(file, len(data.train))
    else:
        positions = _positions_of_list(file, data.train)
    split, labels = data.labelled_split(), data.train.labels
    assert labels is not None
    if held_out := np.intersect1d(positions, split.validation).tolist():
        raise DataError(
            f"{shown(file)} names {counted(len(held_out), 'image')} that the split holds out for validation (first: "
            f"{_named(data.train, held_out[0])}). Take them out of the file."
        )
    known = np.union1d(split.train, split.long_tail)
    unusable = np.setdiff1d(positions, known)
    # images outside the authors' lists may well be labelled; elsewhere images outside the split are unusable
    if len(unusable) and split.source != "authors' lists":
        raise DataError(
            f"{shown(file)} names {_named(data.train, int(unusable[0]))}, which the run has left out as unusable. "
            "Take it out of the file."
        )
    counts = np.bincount(labels[positions], minlength=len(data.class_names))
    there = np.bincount(labels[known], minlength=len(data.class_names))
    missing = [c for c in np.flatnonzero(counts == 0) if there[c] or rule == "raise"]
    if missing:
        names = ", ".join(data.class_names[c] for c in missing[:3])
        raise DataError(
            f"{shown(file)} has no image of {len(missing)} of {len(data.class_names)} classes ({names}"
            f"{', ...' if len(missing) > 3 else ''}). The probe needs one of each."
        )
    return np.sort(positions)


def _named(images: Images, position: int) -> str:
    name = printable(str(images.names[position]))
    return f"position {name}" if images.files is None else name


def _positions_of_npy(file: Path, num_images: int) -> Positions:
    array = read_npy(file)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{shown(file)} must hold whole numbers [n], positions of training images from 0, got "
            f"{array.dtype} {array.shape}."
        )
    outside = np.flatnonzero((array < 0) | (array >= num_images))
    if len(outside):
        raise DataError(
            f"{shown(file)}, entry {outside[0]}: {array[outside[0]]} is not a position of the {num_images:,} training "
            f"images (0 .. {num_images - 1:,})."
        )
    positions = array.astype(np.int64)
    values, first, times = np.unique(positions, return_index=True, return_counts=True)
    if (times > 1).any():
        twice = int(np.flatnonzero(times > 1)[0])
        raise DataError(
            f"{shown(file)} has position {values[twice]} {times[twice]} times (first in entry {first[twice]}); "
            "name each image once."
        )
    return positions


def _positions_of_list(file: Path, images: Images) -> Positions:
    """The images named by the lines of a text file or the rows of a table; labels beside them are not used."""
    found = None if images.files is None else images.files.root
    root = found if isinstance(found, Path) else Path()
    listed = read_listed_images(file, root, unlabelled="leave_out")
    if listed.num_unlabelled:
        raise DataError(
            f"{shown(file)} has {counted(listed.num_unlabelled, 'row')} without a label. Labels are those of the run: "
            "leave the column out, or the rows that are not meant."
        )
    positions: list[int] = []
    row_of: dict[int, int] = {}
    for row, position in enumerate(positions_of(listed, images, None)):
        if position is None:
            raise DataError(_unknown(listed, row, images))
        if position in row_of:
            raise DataError(
                f"{listed.where(row)}: {printable(listed.name(row))} was named before, in "
                f"{listed.unit} {listed.lines[row_of[position]]}; name each image once."
            )
        row_of[position] = row
        positions.append(position)
    return np.array(positions, dtype=np.int64)


def _unknown(listed: ListedImages, row: int, images: Images) -> str:
    like = printable(str(images.names[0]))
    how = (
        "those are named by their positions, from 0"
        if images.files is None
        else f"those have names like {like}"
    )
    return f"{listed.where(row)}: {printable(listed.name(row))} is not a training image; {how}."
