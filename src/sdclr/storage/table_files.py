"""Tables that are written block by block, as CSV or Parquet, so that a million rows need no memory."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Literal

from sdclr.errors import ConfigError
from sdclr.safe_text import as_text, csv_row

Kind = Literal["text", "number", "flag"]
Block = Mapping[str, Sequence[Any]]
"""Column -> its values in some rows, the same number for all; None for a missing value."""
SUFFIXES = (".csv", ".parquet")


def require_table_suffix(suffix: str, out: object, option: str = "--out") -> None:
    """ConfigError for another kind of file, and where pyarrow is needed and missing."""
    if suffix not in SUFFIXES:
        raise ConfigError(f"{option} must be named *.csv or *.parquet, got {out}.")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            'a .parquet file needs pyarrow: pip install "sdclr[parquet]", or write a .csv.'
        )


def write_table(
    file: IO[bytes], suffix: str, columns: Mapping[str, Kind], blocks: Iterator[Block]
) -> None:
    """Write ``blocks`` with ``columns``. A CSV is safe in spreadsheets: no cell is read as a formula."""
    if suffix == ".csv":
        _write_csv(file, columns, blocks)
    else:
        _write_parquet(file, columns, blocks)


def _write_csv(file: IO[bytes], columns: Mapping[str, Kind], blocks: Iterator[Block]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(csv_row(map(as_text, columns)))
    for block in blocks:
        for row in zip(*(block[name] for name in columns), strict=True):
            writer.writerow(csv_row(map(_cell, row)))
    text.detach()


def _cell(value: Any) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else as_text(str(value))


def _write_parquet(file: IO[bytes], columns: Mapping[str, Kind], blocks: Iterator[Block]) -> None:
    import pyarrow
    import pyarrow.parquet

    types = {"text": pyarrow.string(), "number": pyarrow.float64(), "flag": pyarrow.bool_()}
    schema = pyarrow.schema([(as_text(name), types[kind]) for name, kind in columns.items()])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for block in blocks:
            arrays = []
            for name, kind in columns.items():
                values = block[name]
                if kind == "text":
                    values = [None if one is None else as_text(str(one)) for one in values]
                arrays.append(pyarrow.array(values, types[kind]))
            writer.write_table(pyarrow.table(arrays, schema=schema))
