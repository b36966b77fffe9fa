"""scores.csv and scores.parquet: a row an image, in the order of the collection."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from sdclr.presentation.mined import MinedImages
from sdclr.safe_text import as_text, csv_row
from sdclr.storage.checkpoint import storage_errors
from sdclr.storage.row_parts import new_file, put_in_place

WANTED = "wanted"
"""The column for the user's marks: 1, 0 or empty."""
OWN_COLUMNS = ("path", "score", "rank", "group", "group_size", "duplicate_of", "junk", WANTED)
ROWS_PER_PART = 65_536


def write_csv(mined: MinedImages, path: Path) -> None:
    """Numbers that read back to the same bits; names as spreadsheets take them for text."""
    with storage_errors(path):
        with new_file(path) as (temporary, file):
            _write_csv(mined, file)
        put_in_place(temporary, path)


def _write_csv(mined: MinedImages, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    columns = table_columns(mined)
    writer.writerow(csv_row(columns))
    for row in range(len(mined)):
        writer.writerow(csv_row(cell(row) for cell in columns.values()))
    text.detach()


def write_parquet(mined: MinedImages, path: Path) -> bool:
    """The same with types, where pyarrow is installed; returns whether it is."""
    if importlib.util.find_spec("pyarrow") is None:
        return False
    import pyarrow.parquet

    with storage_errors(path):
        with new_file(path) as (temporary, file):
            writer = None
            for part in _record_batches(mined):
                writer = writer or pyarrow.parquet.ParquetWriter(file, part.schema)
                writer.write_table(part)
            if writer is not None:
                writer.close()
        put_in_place(temporary, path)
    return True


def _record_batches(mined: MinedImages) -> Iterator[Any]:
    import pyarrow

    columns = table_columns(mined)
    for first in range(0, len(mined), ROWS_PER_PART):
        rows = range(first, min(first + ROWS_PER_PART, len(mined)))
        arrays = {}
        for name, cell in columns.items():
            values = [cell(row) for row in rows]
            kind = pyarrow.string() if isinstance(values[0], str) else None
            arrays[as_text(name)] = pyarrow.array(values, kind)
        yield pyarrow.table(arrays)


def table_columns(mined: MinedImages) -> dict[str, Callable[[int], Any]]:
    """Name -> the cell of a row. The user's columns come last but one, under names that are free."""
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
    for name, cells in mined.columns.items():
        if name != WANTED:
            columns[_free(name, columns)] = lambda row, cells=cells: as_text(str(cells[row]))  # type: ignore[misc]
    marks = mined.columns.get(WANTED)
    columns[WANTED] = lambda row: "" if marks is None else marks[row]
    return columns


def _original(mined: MinedImages, row: int) -> str:
    original = int(mined.duplicate_of[row])
    return "" if original == row else as_text(mined.names[original])


def _free(name: str, taken: dict[str, Any]) -> str:
    while name in taken or name in OWN_COLUMNS:
        name = f"{name}_"
    return name
