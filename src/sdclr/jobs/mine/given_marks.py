"""Which images the user has marked: in their own table, in an earlier scores.csv, in the feedback table.

N images. A table names images below a folder that may differ from the current one.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import warnings
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sdclr.data import Images
from sdclr.data.collections.contents import ABSENT, read_record
from sdclr.data.sources.tables import read_mark, read_table
from sdclr.errors import DataError, SdclrError
from sdclr.jobs.mine.collection import Joined
from sdclr.jobs.mine.folder import (
    IMAGES,
    MARKS_OF_MISSING,
    PARQUET,
    RECORD,
    SCORES_FILE,
    read_state,
)
from sdclr.jobs.mine.marks import (
    MARK_WORDS,
    Marks,
    MarksByName,
    RowsByName,
    digests_in,
    is_removed,
    read_marks,
    require_both_kinds,
)
from sdclr.presentation.mining.columns import REMOVED, WANTED
from sdclr.safe_text import counted, csv_row, shown, table_text
from sdclr.storage.durable_files import storage_errors, write_atomically

MarkedRows = dict[int, bool | None]
"""Row -> its mark in a table; None if it was removed."""
Naming = Callable[[str], int | None]
"""A name in a table -> the row of the image that it names; None if there is no such image."""


class MissingMark(NamedTuple):
    """A mark of an image that is not mined now."""

    path: str
    wanted: bool
    root: str
    """The folder that the path is relative to; empty if unknown."""
    digest: str
    """The image's digest as recorded by the earlier call; empty if it was not recorded."""


class GivenMarks(NamedTuple):
    """The marks by row, and those of images that are not mined now."""

    marks: Marks
    missing: list[MissingMark]
    parked: list[MissingMark]
    """``missing``, and those whose images are mined again: they stay in their file until scores.csv has them."""
    remarks: list[str]


def given_marks(
    images: Images, joined: Joined, out: Path, feedback: Path | None, roots: Sequence[str]
) -> GivenMarks:
    """The marks of all these tables combined; if two of them mark one image, the last one counts.

    The word "removed" in the feedback removes the mark of its image; an empty cell has no effect.
    ``roots``: folders that the names in the feedback may be relative to, besides ``joined.root``.
    Warns of earlier marks whose images are not mined now. Raises DataError for feedback on such
    images, for feedback of only one kind, and for an invalid mark.
    """
    listed_marks = _marks_of_table(images, joined)
    scores, parked = out / SCORES_FILE, _parked_marks(out / MARKS_OF_MISSING)
    earlier, lost = _earlier_marks(scores, joined) if scores.is_file() else ({}, [])
    returned, missing = _returned(parked, joined, earlier)
    missing, parked = _merged(missing, lost), _merged(parked, lost)
    marks = listed_marks | returned | earlier
    remarks: list[str] = []
    if feedback is not None:
        entries = _feedback_marks(feedback, joined, roots)
        taken_away = {row for row, mark in entries.items() if mark is None and row in marks}
        remarks = _remarks_on(taken_away, listed_marks, feedback)
        marks |= _marked(entries)
        marks = {row: mark for row, mark in marks.items() if row not in taken_away}
        if taken_away and not marks:
            raise DataError(
                f"{feedback} takes all marks away, and without marks there is nothing to rank by. "
                f"Empty the cells of {WANTED} in {shown(scores)} and leave --feedback out."
            )
        require_both_kinds(marks, feedback)
    return GivenMarks(marks, missing, parked, remarks)


def _marked(entries: MarkedRows) -> Marks:
    return {row: mark for row, mark in entries.items() if mark is not None}


def _remarks_on(taken_away: set[int], listed_marks: Marks, feedback: Path) -> list[str]:
    """Remarks on marks that the feedback has removed, and that the images' own table will restore."""
    if not taken_away:
        return []
    remarks = [f"{counted(len(taken_away), 'mark')} taken away: {feedback.name} says {REMOVED}."]
    if num_listed := len(taken_away & listed_marks.keys()):
        remarks.append(
            f"{counted(num_listed, 'mark')} of these is in the images' own table, whose column {WANTED} "
            "counts again in the next call: empty the cell there as well."
        )
    return remarks


def keep_missing(missing: Sequence[MissingMark], out: Path) -> None:
    """Write the marks whose images are not mined now; delete the file if there are none."""
    path = out / MARKS_OF_MISSING
    if not missing:
        with storage_errors(path):
            path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", WANTED, "root", "digest"])
    for one in missing:
        writer.writerow(csv_row([one.path, "1" if one.wanted else "0", one.root, one.digest]))
    write_atomically(path, text.getvalue())


def _merged(*parts: Sequence[MissingMark]) -> list[MissingMark]:
    """Merge marks; of two marks of one image, the later one counts."""
    return list({_identity(one): one for one in chain(*parts)}.values())


def _identity(one: MissingMark) -> tuple[str, str, str]:
    # without a root, a name may be a position, where another image may have been
    return one.root, one.path, "" if one.root else one.digest


def _parked_marks(file: Path) -> list[MissingMark]:
    """The marks that :func:`keep_missing` has written. Raises DataError if the file is damaged."""
    if not file.is_file() or not file.stat().st_size:
        return []
    try:
        table = read_table(file, known=("path", WANTED))
        columns = [table.columns[name] for name in ("path", WANTED, "root", "digest")]
        rows = list(zip(*columns, strict=True))
        marks = [
            read_mark(text, table.where(i), WANTED, MARK_WORDS)
            for i, (_, text, *_) in enumerate(rows)
        ]
    except (SdclrError, KeyError) as error:
        raise DataError(
            f"{shown(file)} cannot be read ({shown(error, 200)}). It keeps the marks of images that are no longer "
            "mined: restore it, or remove it if these marks are not needed."
        ) from None
    return [
        MissingMark(path, mark, root, digest)
        for (path, _, root, digest), mark in zip(rows, marks, strict=True)
        if mark is not None
    ]


def _returned(
    parked: Sequence[MissingMark], joined: Joined, earlier: Marks
) -> tuple[Marks, list[MissingMark]]:
    """The marks whose images are mined again, and the marks of the others; ``earlier``: those of scores.csv."""
    row_of = (
        _parked_in_memory(parked, joined, earlier)
        if joined.is_in_memory
        else _rows_of_parked(joined)
    )
    marks: Marks = {}
    missing: list[MissingMark] = []
    for one in parked:
        row = row_of(one)
        if row is None:
            missing.append(one)
        else:
            marks[row] = one.wanted
    return marks, missing


def _parked_in_memory(
    parked: Sequence[MissingMark], joined: Joined, earlier: Marks
) -> Callable[[MissingMark], int | None]:
    """The row of a parked mark's image in memory, None if it is not mined."""
    here = [one for one in parked if not one.root]
    places = _rows_in_memory(joined, [(one.path, one.digest) for one in here], earlier)
    rows = dict(zip(map(_identity, here), places, strict=True))
    marked = {(joined.contents[row].digest, mark): row for row, mark in earlier.items()}

    def row_of(one: MissingMark) -> int | None:
        row = rows.get(_identity(one))
        # after a killed call, scores.csv may have this mark already
        return marked.get((one.digest, one.wanted)) if row is None else row

    return row_of


def _rows_of_parked(joined: Joined) -> Callable[[MissingMark], int | None]:
    """The row of a parked mark's image among files, None if it is not mined."""
    by_name = RowsByName([one.path for one in joined.contents]).get
    places: dict[str, Naming] = {}

    def row_of(one: MissingMark) -> int | None:
        if one.root not in places:
            is_there = one.root and os.path.exists(one.root)
            places[one.root] = _below(one.root, joined) if is_there else by_name
        row = places[one.root](one.path)
        if row is None:  # a copy in another folder
            other = by_name(one.path)
            if other is not None and one.digest and one.digest == joined.contents[other].digest:
                row = other
        return row

    return row_of


def _marks_of_table(images: Images, joined: Joined) -> Marks:
    """The marks in the table that lists the images."""
    cells = None if images.files is None else images.files.columns.get(WANTED)
    if cells is None:
        return {}
    marks: Marks = {}
    for place, row in enumerate(joined.listed_row.tolist()):
        where = f"image {shown(joined.contents[place].path)}"
        try:
            cell = "" if row < 0 or is_removed(str(cells[row])) else str(cells[row])
            mark = read_mark(cell, where, WANTED, MARK_WORDS)
        except DataError as error:
            raise DataError(
                f"{error} This column of the images' table is read as marks: correct the cell, or rename "
                "the column if it means something else."
            ) from None
        if mark is not None:
            marks[place] = mark
    return marks


_LOST_COLUMNS = (
    "It keeps the marks of earlier calls: restore it, or remove it if these marks are not needed."
)


def _earlier_marks(scores: Path, joined: Joined) -> tuple[Marks, list[MissingMark]]:
    entries: MarksByName = {
        name: mark for name, mark in read_marks(scores, _LOST_COLUMNS).items() if mark is not None
    }
    if not entries:
        return {}, []
    placed = _placed(entries, _namings(scores, joined, ())[0])
    found, lost = placed.rows, placed.unknown
    _require_named_apart(entries, found, joined, scores)
    _require_no_contradiction(placed, scores)
    if lost:
        warnings.warn(
            f"{counted(len(lost), 'mark')} in {shown(scores)} cannot be shown: no such image is mined now, the first "
            f"is {shown(lost[0])}. They are kept in {MARKS_OF_MISSING} and count again when their images are mined.",
            stacklevel=5,
        )
    root = _root_of_table(scores) or ""
    was_in_memory = _was_in_memory(scores.parent)
    digests = _digests_of_table(scores) if was_in_memory else _recorded_digests(scores.parent)
    return _marked(found), [
        MissingMark(name, bool(entries[name]), root, digests.get(table_text(name), ""))
        for name in lost
    ]


def _feedback_marks(file: Path, joined: Joined, roots: Sequence[str]) -> MarkedRows:
    entries = read_marks(file)
    found = [
        _placed(entries, naming)
        for naming in _namings(file, joined, roots, in_any_form=not _is_of_ours(file))
    ]
    fit = [(len(_marked(rows)), len(rows)) for rows, *_ in found]  # marks first, then removed ones
    best = [one for one, of_these in zip(found, fit, strict=True) if of_these == max(fit)]
    rows, unknown, _ = best[0]
    _require_named_apart(entries, rows, joined, file)
    _require_no_contradiction(best[0], file)
    if unknown:
        is_utf8 = not any("\ud800" <= letter <= "\udfff" for letter in unknown[0])
        advice = (
            "Give marks of the images that are mined."
            if is_utf8
            else "The table is not UTF-8: save it as UTF-8 (a spreadsheet: CSV UTF-8)."
        )
        raise DataError(
            f"{file} marks {counted(len(unknown), 'image')} that the collection does not have, "
            f"the first is {shown(unknown[0])}. {advice}"
        )
    if best[0] is not found[0] and any(other.rows != rows for other in best):
        raise DataError(
            f"{file} marks images whose names both collections have, the first is {shown(next(iter(entries)))}. "
            f"Give their paths below {shown(joined.root)}."
        )
    return rows


class _Placed(NamedTuple):
    rows: MarkedRows
    unknown: list[str]
    """Marked names without an image."""
    contradiction: tuple[str, str] | None
    """The first two names of one image with different marks."""


def _placed(entries: MarksByName, naming: Naming) -> _Placed:
    rows: MarkedRows = {}
    names: dict[int, str] = {}
    unknown: list[str] = []
    contradiction = None
    for name, mark in entries.items():
        row = naming(name)
        if row is None:
            if mark is not None:
                unknown.append(name)
            continue
        former = names.setdefault(row, name)
        if rows.setdefault(row, mark) != mark and contradiction is None:
            contradiction = former, name
    return _Placed(rows, unknown, contradiction)


def _require_no_contradiction(placed: _Placed, file: Path) -> None:
    if placed.contradiction is not None:
        first, second = placed.contradiction
        raise DataError(
            f"{file} marks one image in two ways, as {shown(first)} and as {shown(second)}. Leave one of its rows."
        )


def _require_named_apart(
    entries: MarksByName, rows: MarkedRows, joined: Joined, file: Path
) -> None:
    """Raise DataError for an ambiguous mark: a line break in a name and its escape are written alike."""
    marked = {table_text(joined.contents[row].path) for row in rows}
    names_of: dict[str, list[str]] = {}
    for one in joined.contents:
        if table_text(one.path) in marked:
            names_of.setdefault(table_text(one.path), []).append(one.path)
    for names in names_of.values():
        if len(names) > 1 and not entries.keys() & {
            name for name in names if table_text(name) != name
        }:
            raise DataError(
                f"{file} marks an image that may be {names[0]!r} or {names[1]!r}: tables write both "
                "names alike. Rename one of the two files."
            )


# ---- resolving the names of a table


def _namings(
    file: Path, joined: Joined, roots: Sequence[str], *, in_any_form: bool = False
) -> list[Naming]:
    """Ways to resolve the names of a table, the likeliest first; a single one if its mine.json records the root.

    ``in_any_form``: a person may have written them; names that we have written are exact.
    """
    if joined.is_in_memory:
        return [_in_memory(file, joined)]
    by_name = _by_name(joined, in_any_form=in_any_form)
    root = _root_of_table(file)
    if root is None or root == joined.root:
        others = (_below(one, joined, in_any_form=in_any_form) for one in roots if one)
        return [by_name, *others]
    by_place = _below(root, joined, in_any_form=in_any_form)
    digests = _recorded_digests(file.parent)

    def naming(name: str) -> int | None:
        row = by_place(name)
        if row is not None:
            return row
        row = by_name(name)  # a copy in another folder: same name, same content
        digest = digests.get(table_text(name))
        is_same = row is not None and bool(digest) and digest == joined.contents[row].digest
        return row if is_same else None

    return [naming]


def _by_name(joined: Joined, *, in_any_form: bool) -> Naming:
    """Resolve names relative to the root of the collection, or whole paths, as in FiftyOne's table."""
    rows = RowsByName([one.path for one in joined.contents])
    look_up = rows.find if in_any_form else rows.get
    root = f"{table_text(Path(joined.root).as_posix()).rstrip('/')}/"

    def naming(name: str) -> int | None:
        row = look_up(name)
        text = posixpath.normpath(table_text(name)) if in_any_form else table_text(name)
        return look_up(text.removeprefix(root)) if row is None and text.startswith(root) else row

    return naming


def _in_memory(file: Path, joined: Joined) -> Naming:
    """Resolve names in a table of images in memory: by digest where the table has them, else by position."""
    digests = _digests_of_table(file)
    rows = dict(zip(digests, _rows_in_memory(joined, list(digests.items())), strict=True))
    positions = RowsByName([one.path for one in joined.contents])

    def naming(name: str) -> int | None:
        text = table_text(name)
        return rows[text] if digests.get(text) else positions.get(name)

    return naming


def _rows_in_memory(
    joined: Joined, images: Sequence[tuple[str, str]], others_rows: Collection[int] = ()
) -> list[int | None]:
    """The rows of images by (name, digest), None for those that are not mined.

    An image that is still at its position stays there; equal images elsewhere are taken in order, each once and none of
    ``others_rows``. Without a digest the position counts.
    """
    row_of = {one.path: row for row, one in enumerate(joined.contents)}
    found: list[int | None] = []
    for name, digest in images:
        row = row_of.get(name)
        is_same = row is not None and digest in ("", joined.contents[row].digest)
        found.append(row if is_same else None)
    taken = {row for row in found if row is not None}.union(others_rows)
    others: dict[str, list[int]] = {}
    for row in reversed(range(len(joined.contents))):
        if row not in taken:
            others.setdefault(joined.contents[row].digest, []).append(row)
    for place, (_, digest) in enumerate(images):
        if found[place] is None and others.get(digest):
            found[place] = others[digest].pop()
    return found


def _digests_of_table(file: Path) -> dict[str, str]:
    """Name as tables write it -> digest, of images in memory: those in the table itself, else those recorded beside it.

    Where a call was killed, what is recorded is newer than the table.
    """
    recorded = _recorded_digests(file.parent) if _is_of_ours(file) else {}
    in_table = digests_in(file)
    if not in_table:
        return recorded
    return {name: digest or recorded.get(name, "") for name, digest in in_table.items()}


def _recorded_digests(folder: Path) -> dict[str, str]:
    """Name as tables write it -> the digest of its content that a mine folder has recorded."""
    recorded = (read_record(folder / IMAGES) or {}).get("images", [])
    return {table_text(one.path): one.digest for one in recorded if one.digest != ABSENT}


def _was_in_memory(folder: Path) -> bool:
    try:
        return not read_state(folder).root
    except DataError:
        return False


def _is_of_ours(table: Path) -> bool:
    return table.name in (SCORES_FILE, PARQUET) and (table.parent / RECORD).is_file()


def _below(root: str, joined: Joined, *, in_any_form: bool = False) -> Naming:
    """Resolve names relative to another folder, which may be above or below that of the collection."""
    own, other = Path(joined.root).as_posix(), Path(root).as_posix()
    rows = RowsByName([_joined(own, one.path) for one in joined.contents])
    look_up = rows.find if in_any_form else rows.get
    return lambda name: look_up(table_text(_joined(other, name)))


def _joined(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


def _root_of_table(file: Path) -> str | None:
    """The root of the names in a scores.csv, from the mine.json beside it; None if unknown or no longer there."""
    if not _is_of_ours(file):
        return None
    try:
        record = read_state(file.parent)
    except DataError:
        return None
    root = record.root if record.table_root is None else record.table_root
    return root if root and os.path.exists(root) else None
