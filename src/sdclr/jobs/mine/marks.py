"""The user's input on images: marks in a table, and images to look for."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdclr.backbones.encoder import Encoder
from sdclr.data import DataConfig
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.sources.split_files import read_text
from sdclr.data.sources.tables import Table, read_mark, read_table
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation.rarity import Feedback, from_feedback, likeness
from sdclr.jobs.mine.looking import features_of
from sdclr.jobs.mine.ranking import OtherScore
from sdclr.presentation.mining.columns import DIGEST_COLUMNS, REMOVED, WANTED, read_digest
from sdclr.safe_text import counted, shown, table_text

Marks = dict[int, bool]
"""Row -> whether it is wanted; rows without a mark are missing."""
MarksByName = dict[str, bool | None]
"""Name in a table -> its mark; None if it was removed. Names with an empty cell are missing."""
PATH_COLUMNS, MARK_COLUMNS = ("path", "filepath"), (WANTED, "rarity_wanted")
"""Their names in scores.csv and in the page's table for FiftyOne."""
HOW_TO_MARK = "Mark images in scores.csv, or download the marks from the page."
MARK_WORDS = ("wanted", "not wanted")
"""Accepted values of a mark besides yes and no."""


def read_marks(file: Path, advice: str = HOW_TO_MARK) -> MarksByName:
    """The column "wanted" of a table with a column "path", such as scores.csv or the page's download.

    An empty cell has no effect: the mark of its image may have been set since. Raises DataError for a value other than
    yes, no or "removed", for contradictory rows of one image, and for a table without these columns, with ``advice``.
    """
    if _is_plain_list(file):
        raise DataError(
            f"{file} is a plain list of paths, which has no marks. Download the CSV with scores and "
            "marks from the page."
        )
    table = read_table(file, known=("path", WANTED))
    path = _column(table, PATH_COLUMNS)
    wanted = _column(table, MARK_COLUMNS)
    if path is None or wanted is None:
        raise DataError(
            f"{file} needs the columns path and {WANTED}; it has {table.names()}. {advice}"
        )
    mark_of: MarksByName = {}
    for i, (name, mark_text) in enumerate(
        zip(table.columns[path], table.columns[wanted], strict=True)
    ):
        mark = (
            None
            if is_removed(mark_text)
            else read_mark(mark_text, table.where(i), WANTED, MARK_WORDS)
        )
        if mark is None and not is_removed(mark_text):
            continue
        former = mark_of.setdefault(name, mark)
        if mark != former:
            raise DataError(
                f"{table.where(i)}: {shown(name)} is marked as {_word(former)} and as {_word(mark)}. "
                "Leave one of its rows."
            )
    return mark_of


def digests_in(file: Path) -> dict[str, str]:
    """Name as tables write it -> the digest of its image, in the order of the table; empty for a table without any.

    A cell with something else is empty: a spreadsheet may have changed it, or the user's own column has that name.
    """
    table = read_table(file, known=("path", WANTED))
    path, digest = _column(table, PATH_COLUMNS), _column(table, DIGEST_COLUMNS)
    if path is None or digest is None:
        return {}
    cells = zip(table.columns[path], table.columns[digest], strict=True)
    return {table_text(name): read_digest(cell) for name, cell in cells}


def is_removed(cell: str) -> bool:
    """Whether a cell records that the mark of its image was removed."""
    return cell.strip().lower() == REMOVED


def _word(mark: bool | None) -> str:
    if mark is None:
        return REMOVED
    return "wanted" if mark else "not wanted"


def _is_plain_list(file: Path) -> bool:
    """Whether it is the page's list of paths rather than a table: its first line is not a header."""
    return (
        file.suffix.lower() == ".txt" and WANTED not in read_text(file).partition("\n")[0].lower()
    )


def _column(table: Table, names: Sequence[str]) -> str | None:
    """The column with exactly one of these names, or else one that differs in capitals."""
    exact = (name for name in names if name in table.columns)
    return next(exact, None) or table.find(names)


class RowsByName:
    """The row of each name."""

    def __init__(self, names: Sequence[str]) -> None:
        as_written: dict[str, int] = {}
        for row, name in enumerate(names):
            as_written.setdefault(table_text(name), row)
        self._rows = as_written | {name: row for row, name in enumerate(names)}

    def get(self, name: str) -> int | None:
        """By a name as it is or as tables write it; None where no image has it."""
        return self._rows.get(name)

    def find(self, name: str) -> int | None:
        """Also by a name as a person may write it (./a.png, é as one character or two), if one image alone has it."""
        row = self.get(name)
        return self._normalised_rows.get(_normalised(name)) if row is None else row

    @cached_property
    def _normalised_rows(self) -> dict[str, int | None]:
        """None where several images share a normalised name."""
        found: dict[str, int | None] = {}
        for name, row in self._rows.items():
            key = _normalised(name)
            found[key] = row if found.get(key, row) == row else None
        return found


def _normalised(name: str) -> str:
    """One spelling of the names that mean the same: letters in NFC, no ``.``, ``..`` or double slash."""
    return posixpath.normpath(unicodedata.normalize("NFC", name))


def mark_column(num_images: int, marks: Mapping[int, bool]) -> list[str]:
    """The cells of the column "wanted", [N]."""
    cells = [""] * num_images
    for row, wanted in marks.items():
        cells[row] = "1" if wanted else "0"
    return cells


def by_feedback(marks: Marks) -> OtherScore:
    """A score that ranks by these marks."""
    rows = torch.tensor(sorted(marks), dtype=torch.int64)
    wanted = torch.tensor([marks[row] for row in rows.tolist()], dtype=torch.bool)

    def score(features: Tensor, listable: Tensor) -> tuple[Tensor, str]:
        found = from_feedback(features, rows, wanted, listable=listable)
        return found.score, _expectation(found, marks)

    return score


def require_both_kinds(marks: Marks, file: Path) -> None:
    """Raise DataError unless some images are wanted and some are not."""
    num_wanted = sum(marks.values())
    if not marks:
        raise DataError(
            f"{file} marks no image: fill in its column {WANTED} with yes or no (1 or 0)."
        )
    if num_wanted in (0, len(marks)):
        mark_text = "wanted" if num_wanted else "not wanted"
        raise DataError(
            f"{file} marks {counted(len(marks), 'image')}, all of them as {mark_text}; mark at least "
            "one of each kind. Looking for images like given ones needs no other: --like IMAGE."
        )


def _expectation(found: Feedback, marks: Marks) -> str:
    """The expected yield of the feedback, in a sentence."""
    num_wanted = sum(marks.values())
    mark_text = f"{num_wanted} marked as wanted, {len(marks) - num_wanted} as not wanted"
    if not found.num_next:
        return f"No unmarked image is left to look for ({mark_text})."
    if found.expected_next is None:
        return (
            f"How many of the next {found.num_next} images are wanted cannot be estimated: too few "
            f"marks ({mark_text}; at least 3 of each are needed)."
        )
    return (
        f"About {found.expected_next:.0f} of the next {found.num_next} unmarked images are "
        f"expected to be wanted ({mark_text}; by cross-validation, as far as the marked images are "
        "like the others)."
    )


def by_likeness(
    wanted: Sequence[str],
    names: Sequence[str],
    root: str,
    encoder: Encoder,
    data: DataConfig,
) -> OtherScore:
    """A score that ranks by likeness to images of the collection (by name or path) or to other files."""
    if not wanted:
        raise ConfigError("--like needs at least one image.")
    rows = RowsByName(names)
    inside: list[int] = []
    outside: list[str] = []
    for text in wanted:
        row = _row_of(text, rows, root)
        if row is not None:
            inside.append(row)
        elif os.path.isfile(text):
            outside.append(text)
        else:
            raise MissingInputError(
                f"--like {shown(text)}: there is no such file, and no image of that name is mined."
            )
    others = _features_of_files(outside, encoder, data) if outside else None

    def score(features: Tensor, listable: Tensor) -> tuple[Tensor, str]:
        queries = [features[inside]] if inside else []
        queries += [] if others is None else [others]
        return likeness(features, torch.cat(queries)), ""

    return score


def _row_of(text: str, rows: RowsByName, root: str) -> int | None:
    if (row := rows.get(text)) is not None:
        return row
    if not os.path.lexists(text):  # ./a.png is a file where there is one
        return rows.find(text)
    if not root:
        return None
    below = os.path.relpath(os.path.realpath(text), root)
    return rows.find(Path(below).as_posix())


def _features_of_files(paths: Sequence[str], encoder: Encoder, data: DataConfig) -> Tensor:
    found = []
    for path in paths:
        images = ImageFiles(
            Path(path).parent,
            (Path(path).name,),
            None,
            exif_rotation=data.exif_rotation,
            grey_bits=data.grey_bits,
            channels=data.channels,
        )
        found.append(features_of(encoder, images.at(np.array([0])).to(torch.device("cpu"))))
    return torch.cat(found)
