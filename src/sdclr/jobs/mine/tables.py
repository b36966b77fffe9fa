"""scores.csv and scores.parquet: one row per image, in the order of the collection."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sdclr.presentation.mined import MinedImages
from sdclr.presentation.mining.columns import table_columns
from sdclr.safe_text import as_text, csv_row
from sdclr.storage.durable_files import storage_errors
from sdclr.storage.row_parts import new_file, put_in_place

ROWS_PER_PART = 65_536


def write_csv(mined: MinedImages, path: Path) -> None:
    """Write numbers that read back to the same bits, and names that spreadsheets take for text."""
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
    """Write the same with types, if pyarrow is installed; return whether it is."""
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
