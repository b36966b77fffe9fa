"""The columns of scores.csv, scores.parquet and a table of chosen images: one layout for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sdclr.presentation.mined import MinedImages
from sdclr.safe_text import as_text

WANTED = "wanted"
"""The column of the reader's marks: 1, 0 or empty. In the user's table it contains the initial marks."""
REMOVED = "removed"
"""In a table for --feedback: the mark of this image was removed. An empty cell has no effect."""
CLASS, NEW = "class", "new"
"""Columns with an image's label, and with whether an earlier collection lacks it."""
DIGEST = "digest"
"""A column for images in memory, whose names are only positions: which image a row, and its mark, belongs to."""
DIGEST_COLUMNS = (DIGEST, "rarity_digest")
"""Its names in scores.csv and in the page's table for FiftyOne."""
OWN_COLUMNS = ("path", "score", "rank", "group", "group_size", "duplicate_of", "junk", WANTED)


def digest_cell(digest: str) -> str:
    """A digest of pixels as tables have it: text in any spreadsheet, which 2e69522593377022 is not.

    >>> digest_cell("2e69522593377022"), read_digest("pixels:2e69522593377022"), read_digest("2E+69")
    ('pixels:2e69522593377022', '2e69522593377022', '')
    """
    return f"pixels:{digest}"


def read_digest(cell: str) -> str:
    """The digest in a cell; empty for any other text."""
    found = re.fullmatch(r"\s*pixels:([0-9a-f]{16})\s*", cell)
    return found[1] if found else ""


def table_columns(mined: MinedImages) -> dict[str, Callable[[int], Any]]:
    """Name -> the cell of a row. The user's columns come before the last one, under names that are free."""
    names, junk = mined.names, mined.junk
    sizes = mined.group_size
    columns: dict[str, Callable[[int], Any]] = {
        "path": lambda row: as_text(names[row]),
        "score": lambda row: float(mined.score[row]),
        "rank": lambda row: int(mined.rank[row]),
    }
    for name, values in mined.components.items():
        columns[_free(name, columns)] = lambda row, values=values: float(values[row])  # type: ignore[misc]
    columns |= {
        "group": lambda row: int(mined.group[row]),
        "group_size": lambda row: int(sizes[mined.group[row]]),
        "duplicate_of": lambda row: _original(mined, row),
        "junk": lambda row: ";".join(kind for kind, flags in junk.items() if flags[row]),
    }
    for name, written in written_names(mined).items():
        cells = mined.columns[name]
        columns[written] = lambda row, cells=cells: as_text(str(cells[row]))  # type: ignore[misc]
    marks = mined.columns.get(WANTED)
    columns[WANTED] = lambda row: "" if marks is None else marks[row]
    return columns


def written_names(mined: MinedImages) -> dict[str, str]:
    """The names in the tables of each of ``mined.columns`` but the marks: a name that is taken gets a ``_``."""
    taken: dict[str, Any] = {}
    for name in mined.components:
        taken[_free(name, taken)] = name
    written: dict[str, str] = {}
    for name in mined.columns:
        if name != WANTED:
            written[name] = _free(name, taken)
            taken[written[name]] = name
    return written


def _original(mined: MinedImages, row: int) -> str:
    original = int(mined.duplicate_of[row])
    return "" if original == row else as_text(mined.names[original])


def _free(name: str, taken: dict[str, Any]) -> str:
    while name in taken or name in OWN_COLUMNS:
        name = f"{name}_"
    return name
