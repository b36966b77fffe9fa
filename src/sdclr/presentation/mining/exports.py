"""Chosen images of a collection as files that other tools read: a row of EXPORTS each.

A writer is a pure function (MinedImages, rows, marks) -> bytes. ``rows`` are written in the order
given; ``marks`` says of a row whether it is wanted (True), not wanted (False) or not judged
(missing). The page writes the same bytes in JavaScript (templates/mining.js). Checks no path.
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
from sdclr.safe_text import as_text, counted, csv_cell, csv_row, one_line

Marks = Mapping[int, bool]
Writer = Callable[[MinedImages, Iterable[int], Marks], bytes]

WANTED = "wanted"
"""The column of the reader's marks: 1, 0 or empty. As a column of the user's table it is where marks start from."""


@dataclass(frozen=True)
class Export:
    """A format in which chosen images leave."""

    name: str
    display_name: str
    file_name: str
    media_type: str
    write: Writer
    origin: str = ""


def csv_header(mined: MinedImages) -> list[str]:
    """The columns of ``scores.csv``; ``csv_cells`` are the cells below them.

    Other scores, and other columns of the user's table, get a _ behind their name where it is taken.
    """
    header = ["path", "score", "rank"]
    for name in mined.components:
        header.append(_free(name, header))
    header += ["group", "group_size", "duplicate_of", "junk"]
    for name in _other_columns(mined):
        header.append(_free(name, header))
    return [str(cell) for cell in csv_row([*map(as_text, header), WANTED])]


def csv_cells(mined: MinedImages, row: int, marks: Marks) -> list[str]:
    """One image: numbers that read back to the same bits."""
    original = int(mined.duplicate_of[row])
    kinds = [kind for kind, flags in mined.junk.items() if flags[row]]
    cells = [mined.names[row], number(float(mined.score[row])), str(int(mined.rank[row]))]
    cells += [number(float(values[row])) for values in mined.components.values()]
    cells += [str(int(mined.group[row])), str(int(mined.group_size[mined.group[row]]))]
    cells += ["" if original == row else mined.names[original], ";".join(kinds)]
    cells += [mined.columns[name][row] for name in _other_columns(mined)]
    cells.append(_mark_cell(marks.get(row)))
    return [str(csv_cell(as_text(cell))) for cell in cells]


def in_sheet_order(mined: MinedImages, rows: Iterable[int]) -> list[int]:
    """``rows`` as the page writes them: in the order of the sheet, behind them the others by rank."""
    places = {row: place for place, row in enumerate(mined.sheet.tolist())}
    last = len(places)
    return sorted(rows, key=lambda row: (places.get(row, last), int(mined.rank[row])))


def first_marks(mined: MinedImages) -> dict[int, bool]:
    """The marks that the user's table came with, in a column "wanted": row -> wanted or not.

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
    """One path a line, the bytes of the file system; a line break within a name is an escape."""
    lines = [mined.names[row].replace("\r", "\\r").replace("\n", "\\n") + "\n" for row in rows]
    return "".join(lines).encode("utf-8", "surrogateescape")


def write_csv(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """The columns of ``scores.csv``: a table for spreadsheets, and for ``sdclr mine --feedback``."""
    return _table(csv_header(mined), (csv_cells(mined, row, marks) for row in rows))


def write_fiftyone(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """A table for FiftyOne's CSVDataset: ``filepath``, then fields whose names begin with rarity."""
    header = ["filepath", "rarity", "rarity_rank", "rarity_group", "rarity_wanted"]
    lines = []
    for row in rows:
        cells = [as_text(full_path(mined, row)), number(float(mined.score[row]))]
        cells += [str(int(mined.rank[row])), str(int(mined.group[row]))]
        lines.append([*cells, _mark_cell(marks.get(row))])
    return _table(header, lines)


def write_label_studio(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """Tasks for Label Studio's import; marks are choices.

    It takes scores from 0 to 1 alone: a prediction's is the share of all images that are not rarer,
    1.0 for rank 1. The score itself is with the task's data.
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
            "result": _choice(marks[row]) if row in marks else [],
        }
        tasks.append({"data": data, "predictions": [prediction]})
    return _json(tasks)


def write_cvat(mined: MinedImages, rows: Iterable[int], marks: Marks) -> bytes:
    """CVAT's list of files on a share or in a cloud storage, in this order: the data of a task."""
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
    """What does not come over in this format, one sentence; empty where everything does.

    A line break in a name is an escape in lists and tables, and so is, in tables, what no table
    holds: bytes that are no text, and signs that turn or hide others.
    """
    changed = [row for row in rows if _changes(mined.names[row], export)]
    if not changed:
        return ""
    return (
        f"{counted(len(changed), 'path')} of {len(rows):,} cannot be written as they are in this format: "
        "line breaks, hidden signs or bytes that are no text are escapes there."
    )


def full_path(mined: MinedImages, row: int) -> str:
    """The image's path with its root before it."""
    root = mined.root
    return f"{root.rstrip('/')}/{mined.names[row]}" if root else mined.names[row]


def _changes(name: str, export: str) -> bool:
    if export == "paths":
        return "\n" in name or "\r" in name
    return export in ("csv", "fiftyone") and one_line(name) != name


_OWN_COLUMNS = ("path", "score", "rank", "group", "group_size", "duplicate_of", "junk", WANTED)
_LOCAL_FILES = "/data/local-files/?d="


def _other_columns(mined: MinedImages) -> list[str]:
    return [name for name in mined.columns if name != WANTED]


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken or name in _OWN_COLUMNS:
        name += "_"
    return name


def _mark_cell(mark: bool | None) -> str:
    return "" if mark is None else str(int(mark))


def _read_mark(text: str) -> bool | None:
    return {"1": True, "0": False}.get(text.strip())


def _choice(wanted: bool) -> list[dict[str, object]]:
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
