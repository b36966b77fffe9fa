"""Chosen images of a collection as files that other tools read: a row of EXPORTS each.

A writer is a pure function (MinedImages, rows, marks) -> bytes. ``rows`` are written in the order
given; ``marks`` maps a row to wanted (True), not wanted (False) or no longer marked (None); rows that
were not judged are missing. The page writes the same bytes in JavaScript (templates/mining.js). Does not check paths.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sdclr.outside import Table
from sdclr.presentation.mined import MinedImages
from sdclr.presentation.mining.columns import DIGEST, DIGEST_COLUMNS, REMOVED, WANTED, table_columns
from sdclr.safe_text import as_text, counted, csv_row, one_line

Marks = Mapping[int, bool | None]
Writer = Callable[[MinedImages, Iterable[int], Marks], bytes]


@dataclass(frozen=True)
class Export:
    """A format in which chosen images are exported."""

    name: str
    display_name: str
    file_name: str
    media_type: str
    write: Writer
    origin: str = ""


def csv_header(mined: MinedImages) -> list[str]:
    """The header of ``scores.csv`` as it is written."""
    return [str(cell) for cell in csv_row(table_columns(mined))]


def in_sheet_order(mined: MinedImages, rows: Iterable[int]) -> list[int]:
    """``rows`` as the page writes them: in the order of the sheet, followed by the others by rank."""
    places = {row: place for place, row in enumerate(mined.sheet.tolist())}
    last = len(places)
    return sorted(rows, key=lambda row: (places.get(row, last), int(mined.rank[row])))


def first_marks(mined: MinedImages) -> dict[int, bool]:
    """The initial marks from the column "wanted" of the user's table: row -> wanted or not.

    >>> from sdclr.presentation.mining.exports import _read_mark
    >>> [_read_mark(text) for text in ("1", "0", "", "perhaps")]
    [True, False, None, None]
    """
    read = [_read_mark(text) for text in mined.columns.get(WANTED, ())]
    return {row: mark for row, mark in enumerate(read) if mark is not None}


def number(value: float) -> str:
    """The shortest text that reads back as the same number.

    >>> number(0.1), number(5.0), number(float("nan"))
    ('0.1', '5.0', 'nan')
    """
    return repr(float(value))


def write_paths(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """One path per line, in the bytes of the file system; a line break within a name is escaped."""
    lines = [mined.names[row].replace("\r", "\\r").replace("\n", "\\n") + "\n" for row in rows]
    return "".join(lines).encode("utf-8", "surrogateescape")


def write_csv(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """The columns of ``scores.csv``: a table for spreadsheets, and for ``sdclr mine --feedback``."""
    columns = table_columns(mined)
    columns[WANTED] = lambda row: _mark_cell(marks, row)
    lines = ([str(one) for one in csv_row(cell(row) for cell in columns.values())] for row in rows)
    return _table(csv_header(mined), lines)


def write_fiftyone(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """A table for FiftyOne's CSVDataset: ``filepath``, then fields whose names begin with rarity."""
    digests = mined.columns.get(DIGEST) if not mined.root else None
    header = ["filepath", "rarity", "rarity_rank", "rarity_group"]
    header += ([] if digests is None else [DIGEST_COLUMNS[1]]) + ["rarity_wanted"]
    lines = []
    for row in rows:
        cells = [as_text(full_path(mined, row)), number(float(mined.score[row]))]
        cells += [str(int(mined.rank[row])), str(int(mined.group[row]))]
        cells += [] if digests is None else [str(digests[row])]
        lines.append([*cells, _mark_cell(marks, row)])
    return _table(header, lines)


def write_label_studio(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """Tasks for Label Studio's import; marks are choices.

    It only accepts scores from 0 to 1: a prediction's is the share of all images that are not rarer,
    1.0 for rank 1. The score itself is in the task's data.
    """
    tasks = []
    for row in rows:
        score = float(mined.score[row])
        data = {
            "image": _LOCAL_FILES + _quoted(mined.names[row]),
            "path": mined.names[row],
            "score": score if math.isfinite(score) else None,
        }
        prediction = {
            "model_version": f"sdclr {mined.score_name}",
            "score": (len(mined) + 1 - int(mined.rank[row])) / len(mined),
            "result": _choice(marks.get(row)),
        }
        tasks.append({"data": data, "predictions": [prediction]})
    return _json(tasks)


def write_cvat(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """CVAT's list of files on a share or in cloud storage, in this order: the data of a task."""
    files = [mined.names[row] for row in rows]
    return _json({"server_files": files, "sorting_method": "predefined", "image_quality": 70})


EXPORTS: Table[Export] = Table(
    "export",
    [
        Export("paths", "Plain list of paths", "paths.txt", "text/plain", write_paths),
        Export("csv", "CSV with scores and marks", "chosen.csv", "text/csv", write_csv),
        Export("fiftyone", "FiftyOne", "fiftyone.csv", "text/csv", write_fiftyone),
        Export(
            "label_studio",
            "Label Studio",
            "label_studio.json",
            "application/json",
            write_label_studio,
        ),
        Export("cvat", "CVAT", "cvat.json", "application/json", write_cvat),
    ],
)
"""Name -> format, in the order of every list."""


def warning(mined: MinedImages, export: str, rows: Sequence[int]) -> str:
    """What this format cannot represent, in one sentence; empty if it represents everything.

    A line break in a name is escaped in lists and tables; tables also escape bytes that are not text,
    and bidirectional or invisible characters.
    """
    changed = [row for row in rows if _changes(mined.names[row], export)]
    if not changed:
        return ""
    return (
        f"{counted(len(changed), 'path')} of {len(rows):,} cannot be written as they are in this format: "
        "line breaks, hidden signs or bytes that are not text are escapes there."
    )


def full_path(mined: MinedImages, row: int) -> str:
    """The image's path prefixed with its root."""
    root = mined.root
    return f"{root.rstrip('/')}/{mined.names[row]}" if root else mined.names[row]


def _changes(name: str, export: str) -> bool:
    if export == "paths":
        return "\n" in name or "\r" in name
    return export in ("csv", "fiftyone") and one_line(name) != name


_LOCAL_FILES = "/data/local-files/?d="


def _mark_cell(marks: Marks, row: int) -> str:
    """The cell of a mark; empty if there is none, so that marks set elsewhere since then are kept."""
    if row not in marks:
        return ""
    mark = marks[row]
    return REMOVED if mark is None else str(int(mark))


def _read_mark(text: str) -> bool | None:
    return {"1": True, "0": False}.get(text.strip())


def _choice(wanted: bool | None) -> list[dict[str, object]]:
    if wanted is None:
        return []
    value = {"choices": ["wanted" if wanted else "not wanted"]}
    return [{"from_name": "wanted", "to_name": "image", "type": "choices", "value": value}]


def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "surrogateescape"), safe="/")


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([one_line(cell) for cell in line] for line in lines)
    return text.getvalue().encode("utf-8")


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode("ascii")
