"""Lists that somebody keeps of their own images: ``.txt`` lines and ``.csv`` tables. Opens no image.

Labels are text here: what they are called is what the classes are called.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sdclr.data.listing import IMAGE_SUFFIXES
from sdclr.data.split_files import path_problem, read_lines, read_text
from sdclr.errors import DataError
from sdclr.safe_text import shown

PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "target")
_LABELLED_LINE = re.compile(r"(.*\S) ([0-9]{1,9})")
_HAS_PADDED_QUOTES = re.compile(r'(?:^|,)[ \t]+"|"[ \t]+(?:,|\r|$)', re.MULTILINE)
_PADDED_FIELD = re.compile(r'[ \t]*("(?:[^"]|"")*+")[ \t]*(?=[,\r\n]|\Z)|[^,\r\n]+')


class ListedImages(NamedTuple):
    """Distinct image files below some root, in the order of their list."""

    paths: list[str]
    labels: list[str] | None
    """[N], the class of each, where the list says it."""
    file: Path
    """The list itself."""
    lines: list[int]
    """[N], the line of each, from 1."""

    def where(self, row: int) -> str:
        """List and line of an entry, for messages."""
        return f"{self.file}, line {self.lines[row]}"


class _Row(NamedTuple):
    line: int
    path: str
    label: str | None


def read_txt_list(file: Path, root: Path | None = None) -> ListedImages:
    """Lines ``relative/path label`` with whole numbers for labels, or plain lines ``relative/path``; never both.

    An absolute path below ``root`` (default: the list's folder) stands for the relative one.
    Raises DataError naming the line.
    """
    lines = [(number, line.strip()) for number, line in read_lines(file)]
    labelled = [_LABELLED_LINE.fullmatch(line) for _, line in lines]
    if any(labelled) and not all(labelled):
        number, line = lines[labelled.index(None)]
        raise DataError(
            f"{file}, line {number}: {line[:80]!r} has no label, and other lines have one. "
            "Every line is 'relative/path label', or every line is 'relative/path'."
        )
    for (number, line), match in zip(lines, labelled, strict=True):
        if match is None and _ends_in_a_word(line):
            raise DataError(
                f"{file}, line {number}: {line[:80]!r} ends in no whole number. Labels of a .txt list are whole "
                "numbers after one space; for labels that are words, write a .csv with the columns path,label."
            )
    return _checked(
        file,
        [
            _Row(number, match[1], match[2]) if match else _Row(number, line, None)
            for (number, line), match in zip(lines, labelled, strict=True)
        ],
        root,
    )


def _ends_in_a_word(line: str) -> bool:
    """Whether an image's name is followed by something after white space."""
    name, *rest = line.rsplit(maxsplit=1)
    return bool(rest) and name.lower().endswith(IMAGE_SUFFIXES) and not rest[0].lower().endswith(IMAGE_SUFFIXES)


def read_csv_list(file: Path, root: Path | None = None) -> ListedImages:
    """A table with a column of paths and, where there is one, a column of labels, any text.

    Columns are found by name (PATH_COLUMNS, LABEL_COLUMNS; capitals do not matter), the first of these that is there.
    Spaces around quoted fields and labels do not count; those around a path may belong to its name, and stay here.
    An absolute path below ``root`` (default: the list's folder) stands for the relative one.
    Raises DataError naming the columns or the line.
    """
    text = read_text(file)
    if _HAS_PADDED_QUOTES.search(text):
        text = _PADDED_FIELD.sub(lambda match: match[1] or match[0], text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        path_column, label_column = _column(names, PATH_COLUMNS), _column(names, LABEL_COLUMNS)
        if path_column is None:
            raise DataError(
                f"{file} needs a column {', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]}; its first line names the "
                f"columns {shown(', '.join(names), 300) or 'none'}. Columns are separated by commas."
            )
        for fields in reader:
            if not any(map(str.strip, fields)):
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{file}, line {reader.line_num}: {len(fields)} fields for {len(names)} columns. Put quotes around "
                    "a name with a comma."
                )
            label = None if label_column is None else fields[label_column].strip()
            if label == "":
                raise DataError(
                    f"{file}, line {reader.line_num}: no {names[label_column or 0]}. Give every image one, or rename "
                    "the column."
                )
            rows.append(_Row(reader.line_num, fields[path_column], label))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not a table of comma-separated values: {error}.") from None
    return _checked(file, rows, root)


def _below(roots: tuple[str, ...], path: str) -> str:
    """An absolute path below one of ``roots`` as the relative one; any other as it is."""
    bare = path.lstrip()
    if not os.path.isabs(bare):
        return path
    bare = os.path.normpath(bare) if "\0" not in bare and ".." not in bare.split("/") else bare
    bare = bare[1:] if bare.startswith("//") else bare  # POSIX keeps two slashes at the beginning
    return next((bare[len(root) :] for root in roots if bare.startswith(root)), path)


def _column(names: list[str], wanted: Iterable[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _checked(file: Path, rows: list[_Row], root: Path | None) -> ListedImages:
    """Rows whose paths stay below the root and are distinct, ``./a//b`` written as ``a/b``."""
    line_of: dict[str, int] = {}
    begin = file.parent if root is None else root
    roots = tuple(os.path.join(name, "") for name in {os.path.abspath(begin), os.path.realpath(begin)})
    for row in rows:
        where = f"{file}, line {row.line}"
        if not row.path.strip():
            raise DataError(f"{where}: no path.")
        if "\t" in row.path and file.suffix.lower() == ".txt":
            raise DataError(f"{where}: a tab; one space goes between path and label: {row.path[:80]!r}.")
        relative = _below(roots, row.path)
        if problem := path_problem(relative):
            raise DataError(
                f"{where}: {problem} Paths are relative to the list's folder, or to data.root; absolute ones must "
                "lie below it."
            )
        path = posixpath.normpath(relative)
        if path in line_of:
            raise DataError(f"{where}: {row.path!r} is listed already, in line {line_of[path]}.")
        line_of[path] = row.line
    if not line_of:
        raise DataError(f"image list {file} names no image.")
    labels = [row.label for row in rows if row.label is not None]
    return ListedImages(list(line_of), labels or None, file, list(line_of.values()))
