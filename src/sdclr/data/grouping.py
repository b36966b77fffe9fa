"""Groups of images that belong together: a burst, a tile, a patient, a camera.

N images, G groups. Images of one group look alike for a reason other than their class. Where some are trained on and
others are tested on, the test measures that reason.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sdclr.data.collections.images import Images
from sdclr.data.decoding.decode import printable
from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import shown

FOLDER = "folder"
"""The value of ``data.group_by`` that groups images by their folder."""
_NO_COLUMNS: Mapping[str, Any] = {}


class Groups(NamedTuple):
    """Which group each image belongs to."""

    of_image: Positions
    """int64 [N], 0 .. G - 1 in the order of the names."""
    names: list[str]
    """[G], ascending."""
    unnamed: frozenset[str] = frozenset()
    """Those of the names that were made up for empty cells: each is a single image, in every table."""


def group_images(images: Images, by: str, columns: Mapping[str, Any] = _NO_COLUMNS) -> Groups:
    """The groups of N images.

    ``by``: a column of their table (or of ``columns``, texts [N] by name, which take precedence); or ``folder``; or a
    regular expression with one pair of parentheses, which capture the name of the group in the path of each image. An
    empty cell of a column is a group of its own, with a warning. Raises ConfigError for anything else, and where images
    in memory, which have no paths, are not grouped by a column; DataError where the expression does not match a path.

    >>> from sdclr.data.sources.arrays import read_digits
    >>> digits = read_digits().train
    >>> group_images(digits, "camera", {"camera": ["a", "b"] * (len(digits) // 2) + ["a"]}).names
    ['a', 'b']
    """
    own = {} if images.files is None else images.files.columns
    names = None if images.files is None else images.names
    return group_names(names, by, {**own, **columns})


def column_called(by: str, columns: Iterable[str]) -> str | None:
    """The column that ``by`` names: exactly, or ignoring case where only one matches; None where there is none."""
    names = list(columns)
    if by in names:
        return by
    alike = [name for name in names if name.lower() == by.lower()]
    return alike[0] if len(alike) == 1 else None


def group_names(names: Sequence[str] | None, by: str, columns: Mapping[str, Any]) -> Groups:
    """The groups of images with these ``names`` (None for images without paths); otherwise as :func:`group_images`.

    >>> group_names(["a/1.jpg", "b/2.jpg", "a/3.jpg"], "folder", {}).of_image.tolist()
    [0, 1, 0]
    """
    if (column := column_called(by, columns)) is not None:
        return _by_column(column, [str(cell).strip() for cell in columns[column]])
    if names is None:
        raise ConfigError(
            f"data.group_by={shown(by, 80)}: these images are in memory and have neither paths nor "
            "columns to group them by. Leave it out."
        )
    if by == FOLDER:
        return _numbered([name.rpartition("/")[0] for name in names])
    return _by_pattern(_pattern(by, list(columns)), names)


def _by_column(name: str, cells: Sequence[str]) -> Groups:
    if empty := sum(not cell for cell in cells):
        warnings.warn(
            f"column {shown(name, 80)} is empty for {empty} of {len(cells)} images: each of them is "
            "a group of its own.",
            stacklevel=3,
        )
    names = [cell or f"(row {row})" for row, cell in enumerate(cells)]
    made_up = frozenset(name for name, cell in zip(names, cells, strict=True) if not cell)
    return _numbered(names)._replace(unnamed=made_up - set(cells))


def _pattern(text: str, columns: Sequence[str]) -> re.Pattern[str]:
    known = ", ".join(shown(name, 40) for name in columns) or "none"
    advice = (
        f"Give a column of the table (there are: {known}), {FOLDER}, or an expression with one pair "
        r"of parentheses that finds the group in a path, such as '(.*)_\d+\.jpg'."
    )
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"data.group_by={shown(text, 80)} is not a regular expression ({error}). {advice}"
        ) from None
    if pattern.groups != 1:
        raise ConfigError(
            f"data.group_by={shown(text, 80)} has {pattern.groups} pairs of parentheses. {advice}"
        )
    return pattern


def _by_pattern(pattern: re.Pattern[str], names: Sequence[str]) -> Groups:
    found = [pattern.search(name) for name in names]
    groups = [None if match is None else match[1] for match in found]
    if None in groups:
        first = printable(str(names[groups.index(None)]))
        raise DataError(
            f"data.group_by={shown(pattern.pattern, 80)} finds no group in {groups.count(None)} of "
            f"{len(names)} paths (first: {first})."
        )
    return _numbered([str(group) for group in groups])


def _numbered(names: Sequence[str]) -> Groups:
    distinct = sorted(set(names))
    number_of = {name: number for number, name in enumerate(distinct)}
    return Groups(np.array([number_of[name] for name in names], dtype=np.int64), distinct)


def require_held_out_apart(groups: Groups, train: Positions, validation: Positions) -> None:
    """DataError where a group has both training images and images of a validation set that was given."""
    of_train, held_out = np.unique(groups.of_image[train]), np.unique(groups.of_image[validation])
    shared = np.intersect1d(of_train, held_out)
    if len(shared):
        raise DataError(
            f"{len(shared)} of {len(held_out)} groups of the validation set are among the training images as well "
            f"(first: {shown(groups.names[shared[0]], 80)}): what is alike within a group would be measured as if it "
            "were learned. Move them to one side, or leave data.group_by out."
        )


def require_apart(train: Groups, test: Groups) -> None:
    """DataError where a group has both training images and test images."""
    shared = sorted(set(train.names) - train.unnamed & set(test.names) - test.unnamed)
    if shared:
        raise DataError(
            f"{len(shared)} of {len(test.names)} groups of the test set are among the training "
            f"images as well (first: {shown(shared[0], 80)}): what is alike within a group would be "
            "measured as if it were learned. Move them to one side, or leave data.group_by out."
        )
