"""Boxes inside pictures: the columns of a table that hold them, and their unit.

N boxes. A box is (left, top, right, bottom), in pixels from the left and the upper edge or in fractions of width and
height, in the picture as displayed: rotated by EXIF where that is set. The right and the lower edge are exclusive: four
pixels are (0, 0, 2, 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sdclr.data.choices import WantedBoxes
from sdclr.data.collections.boxes import Corners, Unit
from sdclr.data.sources.tables import Table
from sdclr.errors import ConfigError, DataError
from sdclr.safe_text import shown

SIZES = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
)
"""Columns of the left upper corner, width and height."""
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"),
)
"""Columns of the left upper and the right lower corner."""


class BoxColumns(NamedTuple):
    """The four columns of a table that hold the position of a box."""

    names: tuple[str, ...]
    are_corners: bool


def has_box_columns(table: Table) -> bool:
    """Whether a table has at least one set of box columns."""
    return bool(_sets_of_columns(table))


def find_box_columns(table: Table) -> BoxColumns | None:
    """The columns of a table that hold boxes, by SIZES and CORNERS, ignoring case.

    Raises ConfigError where a table has several of these.
    """
    found = _sets_of_columns(table)
    if len(found) > 1:
        several = " and ".join(f"({', '.join(one.names)})" for one in found)
        raise ConfigError(
            f"{table.file} has several sets of box columns: {several}. Rename all but one, or use data.boxes=none for "
            "whole pictures."
        )
    return found[0] if found else None


def _sets_of_columns(table: Table) -> list[BoxColumns]:
    found: list[BoxColumns] = []
    for sets, are_corners in ((SIZES, False), (CORNERS, True)):
        for wanted in sets:
            names = [table.find([one]) for one in wanted]
            complete = tuple(name for name in names if name is not None)
            if len(complete) == len(wanted):
                found.append(BoxColumns(complete, are_corners))
    return found


def read_boxes(
    table: Table, columns: BoxColumns, wanted: WantedBoxes
) -> tuple[list[Corners], Unit]:
    """The box of every row, and their unit. DataError naming the line, or ConfigError for an ambiguous unit."""
    rows: list[Corners] = []
    cells = [table.columns[name] for name in columns.names]
    for row in range(len(table.lines)):
        values = [
            _number(table, row, name, column[row])
            for name, column in zip(columns.names, cells, strict=True)
        ]
        x, y, third, fourth = values
        rows.append((x, y, third, fourth) if columns.are_corners else (x, y, x + third, y + fourth))
    if wanted in ("pixels", "fractions"):
        return rows, wanted
    numbers = np.array(
        [[float(column[row]) for column in cells] for row in range(len(table.lines))]
    ).reshape(-1, 4)
    return rows, _unit(table, columns, numbers)


def _number(table: Table, row: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        comma = " Numbers have a point, and no comma." if "," in cell else ""
        raise DataError(
            f"{table.where(row)}: {name} of a box must be a number, got {shown(cell, 40)!r}.{comma} Take rows without "
            "a box out of the table."
        )
    return value


def _unit(table: Table, columns: BoxColumns, numbers: npt.NDArray[np.float64]) -> Unit:
    """Fractions where all numbers are at most 1 and some are not whole; pixels where that is clear; else an error."""
    names = ", ".join(columns.names)
    cure = "Say which: data.boxes=pixels or data.boxes=fractions (data.boxes=none takes whole pictures)."
    if not len(numbers):
        return "pixels"  # an empty table is refused elsewhere
    largest = float(numbers.max())
    if largest <= 1:
        if (numbers % 1 != 0).any():
            return "fractions"
        raise ConfigError(
            f"{table.file}: {names} are 0 and 1 only, which may be pixels or fractions. {cure}"
        )
    if largest <= 2:
        raise ConfigError(
            f"{table.file}: {names} reach {largest:g}, which may be pixels, or fractions that leave the picture. {cure}"
        )
    small = np.flatnonzero((numbers <= 1).all(axis=1) & (numbers % 1 != 0).any(axis=1))
    if len(small):
        raise ConfigError(
            f"{table.where(int(small[0]))}: {names} are at most 1, as fractions are, and others of this table reach "
            f"{largest:g}, as pixels do. {cure}"
        )
    return "pixels"


# ---- MegaDetector


def is_megadetector(value: Any) -> bool:
    """Whether a JSON value is what MegaDetector writes."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("images"), list)
        and "detection_categories" in value
    )


def megadetector_table(
    file: Any, value: Mapping[str, Any], categories: Sequence[str], min_confidence: float
) -> tuple[Table, list[str]]:
    """The detections of some categories as a table of boxes in fractions, and remarks on what was left out.

    Its columns are file, x, y, width, height, category and confidence. The format: ``images`` with ``file`` and
    ``detections`` (``category``, ``conf``, ``bbox``: x, y, width and height as fractions of the picture *after* it was
    rotated by EXIF: MegaDetector rotates orientations 3, 6 and 8, all that cameras write, and leaves mirrored ones).
    Raises DataError naming the image, and ConfigError for a category that the file does not have.
    """
    names = _category_names(file, value)
    unknown = [one for one in categories if one not in names.values() and one not in names]
    if unknown:
        raise ConfigError(
            f"data.box_categories={unknown[0]}: {file} has no such category. It has "
            f"{', '.join(f'{key} ({name})' for key, name in names.items()) or 'none'}."
        )
    wanted = {key for key, name in names.items() if key in categories or name in categories}
    columns: dict[str, list[str]] = {
        name: [] for name in ("file", "x", "y", "width", "height", "category", "confidence")
    }
    lines: list[int] = []
    num_failed = num_unsure = num_other = num_without = 0
    for number, image in enumerate(value["images"], start=1):
        where = f"{file}, image {number}"
        if not isinstance(image, Mapping) or not isinstance(image.get("file"), str):
            raise DataError(f"{where}: an object with a file was expected, got {shown(image, 80)}.")
        detections = image.get("detections")
        if image.get("failure") or detections is None:
            num_failed += 1
            continue
        if not isinstance(detections, list):
            raise DataError(f"{where}: detections must be a list, got {shown(detections, 80)}.")
        before = len(lines)
        for detection in detections:
            category, confidence, box = _detection(where, detection)
            if category not in wanted:
                num_other += 1
            elif confidence < min_confidence:
                num_unsure += 1
            else:
                cells = [image["file"], *map(repr, box), names[category], repr(confidence)]
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.append(cell)
                lines.append(number)
        num_without += len(lines) == before
    counts = {
        f"detections below data.min_confidence={min_confidence:g}": num_unsure,
        f"detections of other categories than {', '.join(categories)}": num_other,
        "pictures without a box": num_without,
        "pictures that MegaDetector could not read": num_failed,
    }
    remarks = [f"{what} left out: {num}" for what, num in counts.items() if num]
    if not lines:
        raise DataError(
            f"{file} has no box to cut out of {len(value['images'])} pictures ({', '.join(remarks)})."
        )
    return Table(file, columns, lines, "image"), remarks


def _category_names(file: Any, value: Mapping[str, Any]) -> dict[str, str]:
    names = value["detection_categories"]
    if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(
            f"{file}: detection_categories must name the categories, got {shown(names, 80)}."
        )
    return dict(names)


def _detection(where: str, detection: Any) -> tuple[str, float, list[float]]:
    """Category, confidence and box of one detection."""
    if isinstance(detection, Mapping):
        category, confidence, box = (detection.get(key) for key in ("category", "conf", "bbox"))
        numbers = [confidence, *box] if isinstance(box, list) else []
        are_numbers = all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in numbers
        )
        if isinstance(category, str) and len(numbers) == 5 and are_numbers:
            return category, float(numbers[0]), [float(one) for one in numbers[1:]]
    raise DataError(
        f"{where}: a detection has a category, conf and bbox [x, y, width, height], got {shown(detection, 80)}."
    )
