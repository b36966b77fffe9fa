"""One self-contained HTML page with the results of mining: groups of pictures, a table, a map, exports.

It opens from a disk, makes no requests and has no external parts. A Content-Security-Policy allows
the one script and the one style by their hashes. The first groups are in the HTML itself, so that
they are shown without JavaScript; everything else is data that the script shows incrementally.
Opens no files: small pictures are passed in as JPEG bytes.

N images.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from sdclr.presentation.mined import MinedImages, Rows
from sdclr.presentation.mining import exports
from sdclr.presentation.mining.columns import DIGEST, WANTED
from sdclr.presentation.pages import allowed, source, template
from sdclr.safe_text import as_text, counted, csv_cell, one_line, table_text

MOST_PICTURES = 1000
"""The most images shown as pictures; the others are rows of the table."""
PICTURE_SIDE = 144
"""Longer side of a picture in pixels: 1,000 of them take about 6 MB as JPEG."""
PICTURES_IN_HTML = 120
"""Pictures of the first groups that are shown without JavaScript."""
JUNK_PICTURES = 60


@dataclass(frozen=True)
class Tile:
    """An image on the page, as shown in its HTML."""

    row: int
    path: str
    score: str
    copies: int
    picture: str
    """A data: URL, or empty."""


@dataclass(frozen=True)
class Group:
    """Images of the sheet that look alike."""

    number: int
    alike: str
    score: str
    """The group's score; empty for a single image, which shows its own."""
    tiles: Sequence[Tile]


def pictured_rows(mined: MinedImages, *, top: int) -> Rows:
    """The rows to show as pictures, at most MOST_PICTURES: the top of the sheet, junk, then copies."""
    shown = mined.sheet[: max(0, min(top, MOST_PICTURES))]
    junk = _by_rank(mined, mined.is_junk)[:JUNK_PICTURES]
    copies = np.flatnonzero(mined.is_copy & np.isin(mined.duplicate_of, shown))
    rows = np.concatenate([shown, junk, copies]).astype(np.int64)
    _, first = np.unique(rows, return_index=True)
    kept: Rows = rows[np.sort(first)][:MOST_PICTURES]
    return kept


def render_mined_html(mined: MinedImages, thumbnails: Mapping[int, bytes], *, top: int) -> str:
    """The whole page as text.

    ``thumbnails``: row -> a small JPEG, of ``pictured_rows(mined, top=top)``; an image without one
    is shown by its name. ``top``: how many images of the sheet are shown as pictures.
    """
    shown = mined.sheet[: max(0, min(top, MOST_PICTURES))]
    groups = _groups(mined, shown, thumbnails)
    in_html = {tile.row for group in groups for tile in group.tiles}
    style, script = source("mining.css"), source("mining.js")
    return template("mining.html.j2").render(
        mined=mined,
        title=one_line(mined.title),
        facts=_facts(mined),
        kinds=_kinds(mined),
        num_shown=len(shown),
        num_groups_shown=len(np.unique(mined.group[shown])),
        groups=groups,
        exports=list(exports.EXPORTS.values()),
        style=Markup(style),
        style_hash=allowed(style),
        script=Markup(script),
        script_hash=allowed(script),
        data=Markup(_data(mined, thumbnails, in_html, len(shown))),
    )


def short_number(value: float) -> str:
    """A short number, rounded as by the page's script: four digits below 10,000; a dash for NaN.

    >>> short_number(0.123456), short_number(5.0), short_number(12345.678)
    ('0.1235', '5.0', '12345.678')
    """
    rounded = float(f"{value:.4g}") if abs(value) < 10_000 else value
    return "–" if math.isnan(value) else exports.number(rounded)


def _groups(mined: MinedImages, shown: Rows, thumbnails: Mapping[int, bytes]) -> Sequence[Group]:
    """The first groups of the sheet, until there are enough pictures."""
    members: dict[int, list[int]] = {}
    for row in shown.tolist():
        members.setdefault(int(mined.group[row]), []).append(row)
    groups: list[Group] = []
    num_pictures = 0
    for number, rows in members.items():
        kept = rows[: PICTURES_IN_HTML - num_pictures]
        if not kept:
            break
        num_pictures += len(kept)
        size = int(mined.group_size[number])
        alike = f"{size:,} images look alike" if size > 1 else "1 image alone"
        score = short_number(float(mined.group_score[number])) if size > 1 else ""
        groups.append(Group(number, alike, score, [_tile(mined, row, thumbnails) for row in kept]))
    return groups


def _tile(mined: MinedImages, row: int, thumbnails: Mapping[int, bytes]) -> Tile:
    picture = thumbnails.get(row)
    return Tile(
        row,
        one_line(mined.names[row]),
        short_number(float(mined.score[row])),
        int(mined.copies[row]),
        f"data:image/jpeg;base64,{_base64(picture)}" if picture is not None else "",
    )


def _facts(mined: MinedImages) -> str:
    folded, junk = int(mined.is_copy.sum()), int(mined.is_junk.sum())
    copies = "1 copy" if folded == 1 else f"{folded:,} copies"
    where = f" of {one_line(mined.root)}" if mined.root else ""
    return (
        f"{counted(len(mined), 'image')}{where} in {counted(len(mined.group_score), 'group')}; "
        f"{copies} folded, {junk:,} suspected junk."
    )


def _kinds(mined: MinedImages) -> Mapping[str, int]:
    counts = {kind: int(flags.sum()) for kind, flags in mined.junk.items()}
    return {kind: count for kind, count in counts.items() if count}


def _by_rank(mined: MinedImages, among: npt.NDArray[np.bool_]) -> Rows:
    rows = np.flatnonzero(among)
    ordered: Rows = rows[np.argsort(mined.rank[rows], kind="stable")].astype(np.int64)
    return ordered


def _data(
    mined: MinedImages, thumbnails: Mapping[int, bytes], in_html: set[int], num_shown: int
) -> str:
    """The script's data, as JSON that is safe within HTML: columns, numbers in base64."""
    junk = np.zeros(len(mined), dtype=np.int64)
    for bit, flags in enumerate(mined.junk.values()):
        junk |= flags.astype(np.int64) << bit
    others = [name for name in mined.columns if name != WANTED]
    values = {
        "names": list(mined.names),
        "shown": _changed(mined.names, one_line),
        "texts": _changed(mined.names, lambda name: table_text(name)),
        "cells": _changed(mined.names, lambda name: str(csv_cell(as_text(name)))),
        "root": table_text(mined.root),
        "scoreName": mined.score_name,
        "score": _numbers(mined.score, "<f8"),
        "rank": _numbers(mined.rank, "<i4"),
        "components": [
            {"name": one_line(name), "values": _numbers(column, "<f8")}
            for name, column in mined.components.items()
        ],
        "group": _numbers(mined.group, "<i4"),
        "groupScore": _numbers(mined.group_score, "<f8"),
        "duplicateOf": _numbers(mined.duplicate_of, "<i4"),
        "junk": _numbers(junk, "<i4"),
        "junkKinds": [one_line(kind) for kind in mined.junk],
        "sheet": _numbers(mined.sheet, "<i4"),
        "numShown": num_shown,
        "place": _numbers(mined.place, "<f4"),
        "columns": [
            {
                "name": one_line(name),
                "values": [str(csv_cell(as_text(cell))) for cell in mined.columns[name]],
                "isDigest": name == DIGEST and not mined.root,  # of images in memory
            }
            for name in others
        ],
        "csvHeader": exports.csv_header(mined),
        "marks": exports.first_marks(mined),
        "exports": {
            row.name: {"file": row.file_name, "type": row.media_type}
            for row in exports.EXPORTS.values()
        },
        "pictures": {
            row: _base64(picture) for row, picture in thumbnails.items() if row not in in_html
        },
    }
    text = json.dumps(values, separators=(",", ":"))  # all in ASCII, including lone surrogates
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _changed(names: Sequence[str], written: Callable[[str], str]) -> dict[int, str]:
    """Row -> its written name, if that differs from the name itself."""
    texts = map(written, names)
    return {row: text for row, text in enumerate(texts) if text != names[row]}


def _numbers(values: npt.NDArray[np.generic], kind: str) -> str:
    return _base64(np.ascontiguousarray(values, dtype=kind).tobytes())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
