"""Tables as programs write them: CSV (with , ; tab or |), TSV, JSON lines, JSON and Parquet.

N rows. Every value is text here: the caller decides what a column means. A number is spelled as in its file, a missing
value is an empty string, a list or an object is JSON.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from sdclr.data.choices import JSON_LINES, PARQUET
from sdclr.data.sources.split_files import read_lines, read_text
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import shown, without_guard
from sdclr.storage.documents import parse_json

LARGEST_JSON = 1 << 30
"""Bytes of a JSON table, which is parsed as a whole; JSON lines and Parquet have no such limit."""
LARGEST_PARQUET = 1 << 32
"""Bytes that the columns of a Parquet file may claim to hold when unpacked."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_EXCELS_LINE = re.compile(r"sep=([,;|\t])\r?\n", re.IGNORECASE)
"""What Excel writes before the header to name the delimiter."""


class Table(NamedTuple):
    """The rows of a table, column by column."""

    file: Path
    columns: dict[str, list[str]]
    """By name as written, outer spaces dropped: the text of every row, [N]."""
    lines: list[int]
    """[N], the line of each row, or its number where the file has no lines; from 1."""
    unit: str = "line"
    """What ``lines`` counts: line or row."""
    left_out: tuple[str, ...] = ()
    """Columns that hold no text and no numbers, such as the bytes of images."""
    delimiter: str | None = None

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.file}, {self.unit} {self.lines[row]}"

    def find(self, names: Iterable[str]) -> str | None:
        """The first column that has one of ``names``, ignoring case."""
        by_name = {name.lower(): name for name in reversed(self.columns)}
        return next((by_name[name] for name in names if name in by_name), None)

    def named(self, name: str, setting: str) -> str:
        """The column ``name``, given by a setting. ConfigError that lists the columns if there is none."""
        if name in self.columns:
            return name
        if (found := self.find([name.lower()])) is not None:
            return found
        binary = " (a column of bytes or lists is not text)" if name in self.left_out else ""
        raise ConfigError(
            f"{setting}={shown(name, 80)}: {self.file} has no such column{binary}. It has {self.names()}."
        )

    def names(self) -> str:
        """All columns, for messages."""
        return shown(", ".join(self.columns), 300) or "none"


def read_table(file: Path, known: Collection[str] = ()) -> Table:
    """Any table by its suffix, one of TABLE_SUFFIXES.

    ``known``: names of columns, in lower case, by which the delimiter of a .csv is recognised:
    the first of , ; tab and | with which the header has one of them.
    Raises MissingInputError or DataError naming the line, and ConfigError where pyarrow is needed.
    """
    suffix = file.suffix.lower()
    if suffix in JSON_LINES:
        return _read_json_lines(file)
    if suffix == ".json":
        return table_of_objects(file, read_json(file, _AsWritten))
    if suffix in PARQUET:
        return _read_parquet(file)
    return read_delimited(file, known)


_YES, _NO = ("1", "yes", "true", "y"), ("0", "no", "false", "n")


def read_mark(cell: str, where: str, column: str, words: tuple[str, str]) -> bool | None:
    """A user's yes or no in a cell; None where it is empty. ``words``: this column's own words for yes and no.

    Raises DataError for anything else.
    """
    word = cell.strip().lower().removesuffix(".0")  # as spreadsheets and data frames write it
    if not word:
        return None
    yes, no = words
    if word in (*_YES, yes, *_NO, no):
        return word in (*_YES, yes)
    raise DataError(f"{where}: {column} must be yes, no, 1, 0 or empty, got {shown(cell, 40)}.")


# ---- CSV and TSV


_PADDED: dict[str, tuple[re.Pattern[str], re.Pattern[str]]] = {}


def _padded(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns that find quoted fields with spaces around them, and each field with such spaces."""
    if delimiter not in _PADDED:
        d, blank = re.escape(delimiter), "[ ]" if delimiter == "\t" else r"[ \t]"
        _PADDED[delimiter] = (
            re.compile(rf'(?:^|{d}){blank}+"|"{blank}+(?:{d}|\r|$)', re.MULTILINE),
            re.compile(rf'{blank}*("(?:[^"]|"")*+"){blank}*(?=[{d}\r\n]|\Z)|[^{d}\r\n]+'),
        )
    return _PADDED[delimiter]


def read_delimited(file: Path, known: Collection[str] = ()) -> Table:
    """Values with one delimiter between them. Raises DataError naming the line.

    The apostrophe that our own CSV files put before text that a spreadsheet would take for a formula is dropped.
    """
    text, num_skipped = read_text(file), 0
    delimiters: Iterable[str] = "\t" if file.suffix.lower() in (".tsv", ".tab") else _DELIMITERS
    if match := _EXCELS_LINE.match(text):
        text, num_skipped, delimiters = text[match.end() :], 1, match[1]
    delimiter = _delimiter(text, tuple(delimiters), known)
    has_padded_quotes, field = _padded(delimiter)
    if has_padded_quotes.search(text):
        text = field.sub(lambda match: match[1] or match[0], text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        # the first line that is not blank
        header = next((fields for fields in reader if any(map(str.strip, fields))), [])
        _require_one_of_each(file, header, known)
        names = _distinct(without_guard(name.strip()) for name in header)
        for fields in reader:
            if not any(map(str.strip, fields)):
                continue
            line = reader.line_num + num_skipped
            if len(fields) != len(names):
                raise DataError(
                    f"{file}, line {line}: {len(fields)} fields for {len(names)} columns. Put "
                    f"quotes around a name with a {_singular(delimiter)}."
                )
            rows.append(fields)
            lines.append(line)
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num + num_skipped}: not a table of "
            f"{_singular(delimiter)}-separated values: {error}."
        ) from None
    columns = {
        name: [without_guard(fields[number]) for fields in rows]
        for number, name in enumerate(names)
    }
    return Table(file, columns, lines, delimiter=delimiter)


def delimiter_name(delimiter: str) -> str:
    """Its name for messages: commas, semicolons, tabs or vertical bars."""
    return _DELIMITERS[delimiter]


def _singular(delimiter: str) -> str:
    return _DELIMITERS[delimiter][:-1]


def _delimiter(text: str, delimiters: tuple[str, ...], known: Collection[str]) -> str:
    """The first delimiter with which the header has a known name; else the one that gives the most columns."""
    if len(delimiters) == 1:
        return delimiters[0]
    counts: dict[str, int] = {}
    for delimiter in delimiters:
        names = _header(text, delimiter)
        if any(name.strip(' \t"').lower() in known for name in names):
            return delimiter
        counts[delimiter] = len(names)
    return max(counts, key=counts.__getitem__)  # the first of equal ones


def _header(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []


def _require_one_of_each(file: Path, header: Sequence[str], known: Collection[str]) -> None:
    """DataError where two columns have the same ``known`` name: which one is meant cannot be known."""
    names = [without_guard(name.strip()) for name in header]
    if twice := [name for name in names if name.lower() in known and names.count(name) > 1]:
        raise DataError(
            f"{file} has {names.count(twice[0])} columns called {twice[0]}. Name each differently, or remove one."
        )


def _distinct(names: Iterable[str]) -> list[str]:
    """Names of columns; one without a name gets its number, a repeated one its occurrence."""
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        unique, times = name or f"column {number}", 1
        while unique in found:
            times += 1
            unique = f"{name or f'column {number}'} ({times})"
        found.append(unique)
    return found


# ---- JSON


class _AsWritten(float):
    """A number with its spelling in the file: 1.10 is another label than 1.1."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number


def read_json(file: Path, number: Callable[[str], float] = float) -> Any:
    """The value of a JSON file in any encoding that lists may have. Raises DataError."""
    if file.is_file() and file.stat().st_size > LARGEST_JSON:
        raise DataError(
            f"{file} is larger than {LARGEST_JSON:,} bytes. Save the table as JSON lines "
            "(.jsonl), CSV or Parquet, or divide it."
        )
    text = read_text(file)
    try:
        return parse_json(text, number)
    except ValueError as error:
        lines = (
            " It looks like JSON lines: name it .jsonl."
            if _is_object(text.partition("\n")[0])
            else ""
        )
        raise DataError(f"{file} cannot be read as JSON: {shown(error)}.{lines}") from None


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text), Mapping)
    except ValueError:
        return False


def table_of_objects(file: Path, value: Any) -> Table:
    """A JSON array of objects, one per row. Raises DataError for anything else."""
    if isinstance(value, Mapping) and {"images", "annotations"} <= value.keys():
        raise DataError(
            f"{file} looks like COCO's annotations, which are not read. Write a table (.csv, .jsonl) with a column "
            "path and the boxes in x, y, width, height."
        )
    if not isinstance(value, list):
        raise DataError(
            f"{file} is not a table: a .json table is an array of objects, one for each image "
            '(or what MegaDetector writes: {"images": [...]}).'
        )
    return _of_objects(file, list(enumerate(value, start=1)), "row")


def _read_json_lines(file: Path) -> Table:
    rows: list[tuple[int, Any]] = []
    for number, line in read_lines(file):
        try:
            rows.append((number, parse_json(line, _AsWritten)))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON: {shown(error)}.") from None
    return _of_objects(file, rows, "line")


def _of_objects(file: Path, rows: list[tuple[int, Any]], unit: str) -> Table:
    names: dict[str, None] = {}
    for number, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(
                f'{file}, {unit} {number}: an object was expected, such as {{"path": "a.jpg"}}, got {shown(row, 80)}.'
            )
        names.update(dict.fromkeys(row))
    columns = {name: [as_text(row.get(name)) for _, row in rows] for name in names}
    return Table(file, columns, [number for number, _ in rows], unit)


def as_text(value: Any) -> str:
    """A value of JSON as a cell."""
    if value is None:
        return ""
    if isinstance(value, _AsWritten):
        return value.text
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- Parquet


def _read_parquet(file: Path) -> Table:
    pyarrow, parquet = _pyarrow(file)
    if not file.is_file():
        read_text(file)  # raises an error: it is missing or cannot be read
    try:
        with parquet.ParquetFile(file) as opened:
            schema, facts = opened.schema_arrow, opened.metadata
            names = [field.name for field in schema if _is_plain(pyarrow, field.type)]
            _require_bounded(file, facts)
            table = opened.read(columns=names).combine_chunks() if names else None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {shown(error)}.") from None
    columns: dict[str, list[str]] = {}
    for name in _repeated_names(file, names):
        assert table is not None
        columns[name] = _column_text(pyarrow, table.column(name))
    left_out = tuple(field.name for field in schema if field.name not in columns)
    return Table(file, columns, list(range(1, facts.num_rows + 1)), "row", left_out)


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f'{file} is Parquet, which needs pyarrow: pip install "sdclr[parquet]", or save the table as CSV.'
        ) from None


def _is_plain(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _require_bounded(file: Path, facts: Any) -> None:
    claimed = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if claimed > LARGEST_PARQUET:
        raise DataError(
            f"{file} claims to hold {claimed:,} bytes, more than {LARGEST_PARQUET:,}: a table "
            "names image files and does not hold them."
        )


def _repeated_names(file: Path, names: list[str]) -> list[str]:
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{file} has two columns {shown(repeated, 80)}. Rename one.")
    return names


def _column_text(pyarrow: Any, column: Any) -> list[str]:
    if pyarrow.types.is_floating(column.type):  # pandas writes a missing number as NaN
        column = pyarrow.compute.if_else(pyarrow.compute.is_nan(column), None, column)
    try:
        values = column.cast(pyarrow.string()).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError):
        values = [None if value is None else str(value) for value in column.to_pylist()]
    return ["" if value is None else value for value in values]
