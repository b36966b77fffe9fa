"""Cells of the user's own columns in scores.csv of an earlier call, for images that are not listed now.

N images of this and of an earlier call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sdclr.data.sources.tables import Table, read_table
from sdclr.errors import ConfigError, SdclrError
from sdclr.jobs.mine.collection import Joined
from sdclr.jobs.mine.folder import SCORES_FILE, Stored
from sdclr.presentation.mining.columns import CLASS, OWN_COLUMNS, WANTED
from sdclr.safe_text import shown, table_text

Cells = Mapping[int, str]
"""Row of N -> text, for images that are not listed now."""


@dataclass(frozen=True)
class EarlierTable:
    """The scores.csv of ``earlier``, read once and only if needed."""

    joined: Joined
    earlier: Stored | None

    def group_cells(self, by: str) -> Cells:
        """The cells of a column that groups images. Raises ConfigError if the table has no such column."""
        if not self._rows:
            return {}
        written = self._written_name(by)
        if written is None or not {"path", written} <= set(self._table.columns):
            raise ConfigError(
                f"data.group_by={shown(by, 80)}: {shown(self._file)} has no such column, so the groups of the earlier "
                "collection are not known. Mine all images together, or leave it out."
            )
        return self._cells(written)

    def known_cells(self) -> tuple[Cells, dict[str, Cells]]:
        """Classes, and every column of the user's by its own name. Warns if the table cannot be read."""
        if not self._rows:
            return {}, {}
        try:
            names = self._own_names()
            classes = {} if CLASS in names.values() else self._cells_of_ours(CLASS)
            return classes, {own: self._cells(written) for own, written in names.items()}
        except SdclrError as error:
            warnings.warn(
                f"the columns of the images that only the earlier call had are left empty: {error}",
                stacklevel=4,
            )
            return {}, {}

    @cached_property
    def _rows(self) -> list[int]:
        return np.flatnonzero(~self.joined.is_listed).tolist()

    @property
    def _file(self) -> Path:
        assert self.earlier is not None
        return self.earlier.folder / SCORES_FILE

    @cached_property
    def _table(self) -> Table:
        return read_table(self._file, known=("path", "score"))

    def _cells(self, written: str) -> Cells:
        assert self.earlier is not None
        cell_of = dict(zip(self._table.columns["path"], self._table.columns[written], strict=True))
        paths = [table_text(one.path) for one in self.earlier.contents]
        return {row: cell_of.get(paths[self.joined.stored_row[row]], "") for row in self._rows}

    def _cells_of_ours(self, name: str) -> Cells:
        is_there = {"path", name} <= set(self._table.columns)
        return self._cells(name) if is_there else {}

    def _written_name(self, by: str) -> str | None:
        """The table's name for a column of the user's; None if it has no such column."""
        assert self.earlier is not None
        names = self.earlier.record.table_columns
        if names is not None:
            return table_text(names[by]).strip() if by in names else None
        if f"{by}_" in self._table.columns:  # earlier versions appended _ to a name that was taken
            return f"{by}_"
        return None if by in OWN_COLUMNS else by

    def _own_names(self) -> dict[str, str]:
        """Every column of the user's but the marks -> its name in the table."""
        assert self.earlier is not None
        known = self.earlier.record.table_columns
        if known is None or "path" not in self._table.columns:
            return {}
        names = {own: self._written_name(own) for own in known if own != WANTED}
        return {
            own: written
            for own, written in names.items()
            if written is not None and written in self._table.columns
        }
