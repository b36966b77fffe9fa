"""Lists of a user's own images: ``.txt`` lines and tables. Opens no image.

Labels are text here, and become the names of the classes.
"""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sdclr.data.choices import (
    MEGADETECTOR_CATEGORIES,
    MEGADETECTOR_CONFIDENCE,
    TABLE_SUFFIXES,
    Unlabelled,
    WantedBoxes,
)
from sdclr.data.collections.boxes import Corners, Unit, written
from sdclr.data.sources.box_tables import (
    BoxColumns,
    find_box_columns,
    has_box_columns,
    is_megadetector,
    megadetector_table,
    read_boxes,
)
from sdclr.data.sources.listing import IMAGE_SUFFIXES
from sdclr.data.sources.split_files import leaving_problem, read_lines
from sdclr.data.sources.tables import (
    Table,
    delimiter_name,
    read_json,
    read_table,
    table_of_objects,
)
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import shown

PATH_COLUMNS = (
    *("path", "file", "filename", "image"),
    *(
        "file_name",
        "filepath",
        "file_path",
        "image_path",
        "img_path",
        "image_file",
        "relative_path",
    ),
)
"""Names of the column of paths, in lower case; the first that is present counts."""
LABEL_COLUMNS = ("label", "class", "target")
_LABELLED_LINE = re.compile(r"(.*\S) ([0-9]{1,9})")


class ListedImages(NamedTuple):
    """Distinct image files below some root, in the order of their list."""

    paths: list[str]
    labels: list[str] | None
    """[N], the class of each, where the list has labels; "" for a row without one, if such rows are kept."""
    file: Path
    """The list itself."""
    lines: list[int]
    """[N], the line of each, from 1; in a file without lines its row."""
    columns: Mapping[str, list[str]] = {}
    """The other columns of a table by name, [N] texts each: camera, date or any other."""
    unit: str = "line"
    """What ``lines`` counts: line or row."""
    num_unlabelled: int = 0
    """Rows without a label in a table with a column of labels: those left out, or all."""
    label_column: str | None = None
    remarks: tuple[str, ...] = ()
    boxes: list[Corners] | None = None
    """[N], the box of each that is to be cut out; ``paths`` then lists a file once for each of its boxes."""
    box_unit: Unit = "pixels"
    is_of_turned_pictures: bool = False
    """Whether boxes refer to pictures that were rotated by EXIF, whatever the settings."""

    def name(self, row: int) -> str:
        """The name of an image: its path, with #x,y,width,height for a box."""
        return (
            self.paths[row]
            if self.boxes is None
            else f"{self.paths[row]}#{written(self.boxes[row])}"
        )

    def where(self, row: int) -> str:
        """List and line of an entry, for messages."""
        return f"{self.file}, {self.unit} {self.lines[row]}"


class _Row(NamedTuple):
    line: int
    path: str
    label: str | None
    box: Corners | None = None


def read_listed_images(
    file: Path,
    root: Path | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    unlabelled: Unlabelled = "refuse",
    boxes: WantedBoxes = "none",
    box_categories: Sequence[str] = MEGADETECTOR_CATEGORIES,
    min_confidence: float = MEGADETECTOR_CONFIDENCE,
) -> ListedImages:
    """The images that any list or table names; LIST_SUFFIXES lists the kinds.

    ``root``: the folder that relative paths start from and absolute ones must be below (default: the list's folder).
    ``path_column`` and ``label_column``: the columns of a table, where they are not named as in PATH_COLUMNS and
    LABEL_COLUMNS. ``unlabelled``: what becomes of rows without a label in a table with a column of labels. ``boxes``:
    whether each row of a table with box columns is an image of its own, and in which unit (auto: where there are such
    columns, whose unit must be unambiguous). MegaDetector's files are always boxes, of ``box_categories`` from
    ``min_confidence`` on. The paths are returned as written, normalised, and need not exist:
    :func:`sdclr.data.sources.listed_names.match_names` finds the files they mean. Raises MissingInputError, DataError
    naming the line, or ConfigError that lists the columns.
    """
    if file.suffix.lower() not in TABLE_SUFFIXES:
        for setting, value in (("path", path_column), ("label", label_column)):
            if value is not None:
                raise ConfigError(
                    f"data.{setting}_column={value} is for tables, and {file} is a list of lines. Leave it out."
                )
        return read_txt_list(file, root)
    known = PATH_COLUMNS if path_column is None else (path_column.lower(),)
    if file.suffix.lower() == ".json":
        value = read_json(file)
        if is_megadetector(value):
            if boxes == "pixels":
                raise ConfigError(
                    f"data.boxes=pixels: MegaDetector writes fractions, as {file} does. Leave it out."
                )
            table, remarks = megadetector_table(file, value, box_categories, min_confidence)
            listed = _images_of(table, root, path_column, label_column, unlabelled, "fractions")
            each = f"each of {len(listed.paths)} boxes of {file} is an image"
            return listed._replace(remarks=(each, *remarks), is_of_turned_pictures=True)
        table = table_of_objects(file, value)
    else:
        table = read_table(file, known)
    return _images_of(table, root, path_column, label_column, unlabelled, boxes)


def read_txt_list(file: Path, root: Path | None = None) -> ListedImages:
    """Lines ``relative/path label`` with whole numbers for labels, or plain lines ``relative/path``; never both.

    An absolute path below ``root`` (default: the list's folder) is made relative to it. Raises DataError naming the
    line.
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
                f"{file}, line {number}: {line[:80]!r} does not end in a whole number. Labels of a .txt list are whole "
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
    """Whether an image's name is followed by a word after white space."""
    name, *rest = line.rsplit(maxsplit=1)
    return (
        bool(rest)
        and name.lower().endswith(IMAGE_SUFFIXES)
        and not rest[0].lower().endswith(IMAGE_SUFFIXES)
    )


def _images_of(
    table: Table,
    root: Path | None,
    path_column: str | None = None,
    label_column: str | None = None,
    unlabelled: Unlabelled = "refuse",
    boxes: WantedBoxes = "none",
) -> ListedImages:
    """The rows of a table as images."""
    path_column = (
        table.find(PATH_COLUMNS)
        if path_column is None
        else table.named(path_column, "data.path_column")
    )
    if path_column is None:
        raise _no_paths(table)
    label_column = (
        table.find(LABEL_COLUMNS)
        if label_column is None
        else table.named(label_column, "data.label_column")
    )
    if path_column == label_column:
        raise ConfigError(
            f"{table.file}: {path_column} cannot be the column of paths and that of labels. "
            "Say which is which with data.path_column and data.label_column."
        )
    found, corners, unit = _boxes_of(table, boxes)
    labels = None if label_column is None else [c.strip() for c in table.columns[label_column]]
    missing = {row for row, label in enumerate(labels or ()) if not label}
    if missing and unlabelled == "refuse":
        raise DataError(
            f"{table.where(min(missing))}: no {label_column}. Give every image one, or rename the column."
        )
    if len(missing) == len(table.lines) and unlabelled == "keep_all":
        labels = None
    rows, kept = list[_Row](), list[int]()
    for row, (line, path) in enumerate(zip(table.lines, table.columns[path_column], strict=True)):
        if row in missing and unlabelled == "leave_out":
            continue
        label = None if labels is None else labels[row]
        rows.append(_Row(line, path, label, corners[row] if found is not None else None))
        kept.append(row)
    if table.lines and not rows:
        raise DataError(
            f"{table.file}: no row has a {label_column}. Fill in that column; rows without one are left out."
        )
    others = {
        name: [cells[row] for row in kept]
        for name, cells in table.columns.items()
        if name not in (path_column, label_column) and (found is None or name not in found.names)
    }
    return _checked(
        table.file, rows, root, table.unit, hint=found is None and has_box_columns(table)
    )._replace(
        columns=others,
        num_unlabelled=len(missing),
        label_column=label_column,
        remarks=_remarks(table, found, unit, len(rows)),
        boxes=None if found is None else [row.box for row in rows if row.box is not None],
        box_unit=unit,
    )


def _boxes_of(table: Table, wanted: WantedBoxes) -> tuple[BoxColumns | None, list[Corners], Unit]:
    """The columns of boxes, where they are wanted; the box of each row; their unit."""
    if wanted == "none":
        return None, [], "pixels"
    columns = find_box_columns(table)
    if columns is not None:
        return columns, *read_boxes(table, columns, wanted)
    if wanted != "auto":
        raise ConfigError(
            f"data.boxes={wanted}: {table.file} has no columns of boxes, such as x, y, width, height or xmin, ymin, "
            f"xmax, ymax. It has {table.names()}."
        )
    return None, [], "pixels"


def _remarks(table: Table, boxes: BoxColumns | None, unit: Unit, num_rows: int) -> tuple[str, ...]:
    remarks = []
    if boxes is not None:
        columns = ", ".join(boxes.names)
        remarks.append(
            f"each of {num_rows} boxes of {table.file} ({columns}, in {unit}) is an image; data.boxes=none takes "
            "whole pictures"
        )
    if table.left_out:
        names = ", ".join(table.left_out)
        remarks.append(f"columns of {table.file} that hold no text or numbers left out: {names}")
    return tuple(remarks)


def _no_paths(table: Table) -> DataError:
    if not table.columns and not table.left_out:
        return DataError(
            f"{table.file} is empty. A table has a column path (or file, filename, image) and a row for each image."
        )
    how, names = "", "it has the columns"
    if table.delimiter is not None:
        names = "its first line names the columns"
        how = f" Columns are separated by {delimiter_name(table.delimiter)}."
    binary = ""
    if table.left_out:
        binary = f" ({', '.join(table.left_out)} holds bytes or lists and no paths)"
    return DataError(
        f"{table.file} needs a column path, file, filename or image; {names} "
        f"{table.names()}{binary}.{how} If the paths are in another column, name it "
        "with data.path_column=NAME."
    )


def _below(roots: tuple[str, ...], path: str) -> str:
    """An absolute path below one of ``roots`` as the relative one; any other as it is."""
    bare = path.lstrip()
    if not os.path.isabs(bare):
        return path
    bare = os.path.normpath(bare) if "\0" not in bare and ".." not in bare.split("/") else bare
    bare = bare[1:] if bare.startswith("//") else bare  # POSIX keeps two slashes at the beginning
    return next((bare[len(root) :] for root in roots if bare.startswith(root)), path)


def _common_folder(rows: list[_Row]) -> str:
    """A hint at the folder that contains all absolute paths of a list."""
    absolute = [
        path for row in rows if os.path.isabs(path := row.path.strip()) and "\0" not in path
    ]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute]) if absolute else ""
    if folder in ("", "/", "//") or ".." in folder.split("/"):
        return ""
    return f" Those of this list do with data.root={shown(folder)} (their common folder)."


def _is_file_name(path: str) -> bool:
    """Whether a system accepts it as a file name: JSON can contain lone surrogates."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _checked(
    file: Path, rows: list[_Row], root: Path | None, unit: str = "line", hint: bool = False
) -> ListedImages:
    """Rows whose paths stay below the root and are distinct, ``./a//b`` written as ``a/b``.

    With boxes, path and box together are distinct. ``hint``: whether to mention that boxes could be used as images.
    """
    line_of: dict[tuple[str, Corners | None], int] = {}
    begin = file.parent if root is None else root
    roots = tuple(
        os.path.join(name, "") for name in {os.path.abspath(begin), os.path.realpath(begin)}
    )
    for row in rows:
        where = f"{file}, {unit} {row.line}"
        if not row.path.strip():
            raise DataError(f"{where}: no path.")
        if not _is_file_name(row.path):
            raise DataError(f"{where}: {row.path[:80]!r} is not text that can name a file.")
        if "\t" in row.path and file.suffix.lower() == ".txt":
            raise DataError(
                f"{where}: a tab; one space goes between path and label: {row.path[:80]!r}."
            )
        relative = _below(roots, row.path)
        # a backslash may separate folders, or be part of the escape that our tables write for an undecodable byte
        if problem := leaving_problem(relative) or leaving_problem(relative.replace("\\", "/")):
            raise DataError(
                f"{where}: {problem} Paths are relative to the list's folder, or to data.root; absolute ones must "
                f"be below it.{_common_folder(rows)}"
            )
        path = posixpath.normpath(relative)
        key = path, row.box
        if key in line_of:
            what = (
                f"{row.path!r}"
                if row.box is None
                else f"the box {written(row.box)} of {row.path!r}"
            )
            boxes = (
                " If each row is a box in a picture, use data.boxes=pixels or data.boxes=fractions."
                if hint
                else ""
            )
            raise DataError(f"{where}: {what} is listed already, in {unit} {line_of[key]}.{boxes}")
        line_of[key] = row.line
    if not line_of:
        raise DataError(f"image list {file} names no image.")
    labels = [row.label for row in rows if row.label is not None]
    _warn_of_other_encoding(labels, file)
    return ListedImages(
        [path for path, _ in line_of], labels or None, file, list(line_of.values()), unit=unit
    )


def is_other_encoding(text: str) -> bool:
    """Whether a text from a file has bytes that are not UTF-8."""
    return any("\udc80" <= sign <= "\udcff" for sign in text)


def _warn_of_other_encoding(labels: Iterable[str], file: Path) -> None:
    """Warn of class names with bytes that are not UTF-8: they would be unreadable wherever they are shown."""
    for label in dict.fromkeys(labels):
        if is_other_encoding(label):
            warnings.warn(
                f"{file} is not UTF-8: the label {shown(label, 60)} has bytes that are not letters there. Save "
                "it as UTF-8 (a spreadsheet: CSV UTF-8).",
                stacklevel=5,
            )
            return
