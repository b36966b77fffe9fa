"""Classes and probes that cannot be measured: they are named in an error or left out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from sdclr.data import Data
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.linear_probe import NO_VALIDATION
from sdclr.evaluation.probes import ProbeRow
from sdclr.jobs.evaluate.choices import Untested
from sdclr.safe_text import first_of

_NEEDED = {
    "train": ("no usable training image", 1),
    "test": ("no usable test image", 1),
    "folds": ("fewer than 2 usable labelled images", 2),
}
"""Part of the data -> what a class lacks there, and how many images it needs; folds consist of training images."""


def rows_with_enough_images(rows: Sequence[ProbeRow], data: Data, *, named: bool) -> list[ProbeRow]:
    """The probes for which every class has enough training images.

    Any other probe raises ConfigError if it was ``named``; otherwise it is left out with a warning.
    Raises ConfigError if no probe is left.
    """
    kept, reason = [], ""
    for row in rows:
        if row.shots is None:
            kept.append(row)
            continue
        counts = _counts(data, row.subset)
        if counts.min() >= row.shots:
            kept.append(row)
            continue
        smallest = f"{data.class_names[int(np.argmin(counts))]} has {counts.min()}"
        reason = f"it learns from {row.shots} images of each class, and {smallest}"
        if named:
            raise ConfigError(f"probe {row.name} cannot be measured: {reason}.")
        warnings.warn(f"probe {row.name} is left out: {reason}.", stacklevel=3)
    if not kept:
        raise ConfigError(f"no probe can be measured ({reason}).")
    return kept


def require_validation(rows: Sequence[ProbeRow], protocol: str, data: Data) -> None:
    """DataError, before any image is opened, where one of ``rows`` needs validation images and there are none."""
    split = data.split
    if split is None or len(split.validation):
        return
    if any(row.fitters[protocol].requires_validation for row in rows):
        raise DataError(NO_VALIDATION)


OPTION = "--untested leave_out"
"""The option that leaves such classes out of an evaluation."""


def untested_classes(
    data: Data, parts: Sequence[str], untested: Untested, *, remedy: str = OPTION
) -> list[int]:
    """Classes that lack usable images in one of ``parts`` (train, test or folds).

    Raises DataError, naming them and ``remedy``, if they may not be left out; also if no class is left.
    """
    lost: dict[str, list[int]] = {}
    for part in parts:
        counts = _counts(data, part)
        if classes := np.flatnonzero(counts < _NEEDED[part][1]).tolist():
            lost[part] = classes
    lacking = {_lack(data, part): classes for part, classes in lost.items()}
    return leave_out(data, lacking, untested, remedy=remedy)


def leave_out(
    data: Data, lost: Mapping[str, Sequence[int]], untested: Untested, *, remedy: str = OPTION
) -> list[int]:
    """All classes of ``lost`` (what they lack -> which), with a warning; DataError as in :func:`untested_classes`."""
    classes = sorted({c for found in lost.values() for c in found})
    if not classes:
        return []
    reason = "; ".join(f"{lack}: {_names(data, found)}" for lack, found in lost.items())
    total = len(data.class_names)
    if len(classes) == total:
        raise DataError(f"no class can be measured ({reason}).")
    if untested == "raise":
        raise DataError(
            f"{len(classes)} of {total} classes cannot be measured ({reason}). Add images of them, or evaluate the "
            f"others with {remedy}."
        )
    # always from this line, so that evaluating and comparing a run cause one warning
    warnings.warn(f"{len(classes)} of {total} classes are left out ({reason}).", stacklevel=1)
    return classes


def _lack(data: Data, part: str) -> str:
    if part == "folds" and data.groups is not None:
        return "labelled images in fewer than 2 groups"
    return _NEEDED[part][0]


def _counts(data: Data, part: str) -> Positions:
    """Images of each class [C] in a part; for folds its groups, if images are grouped."""
    num_classes = len(data.class_names)
    labels = data.part("train" if part == "folds" else part).labels
    if labels is None:
        return np.zeros(num_classes, dtype=np.int64)
    groups = data.groups_of("train")
    if part == "folds" and groups is not None:
        labels = np.unique(np.stack([labels, groups]), axis=1)[0]
    return np.bincount(labels, minlength=num_classes)


def _names(data: Data, classes: Sequence[int]) -> str:
    return first_of([data.class_names[c] for c in classes])
