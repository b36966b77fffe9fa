"""What is known of a collection before it is processed: its images, and their labels, marks and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdclr.backbones.encoder import Encoder
from sdclr.data import Data, DataConfig, Images
from sdclr.image_records import read_records
from sdclr.jobs.mine.collection import Joined, Listed, listed
from sdclr.jobs.mine.earlier_table import Cells, EarlierTable
from sdclr.jobs.mine.folder import Stored
from sdclr.jobs.mine.given_marks import GivenMarks, given_marks
from sdclr.jobs.mine.grouped import groups_of
from sdclr.jobs.mine.marks import (
    Marks,
    by_feedback,
    by_likeness,
    mark_column,
)
from sdclr.jobs.mine.ranking import Found, RankingOptions, ranked, require_enough
from sdclr.jobs.mine.request import MineRequest
from sdclr.jobs.mine.seeing import images_and_remarks, joined_with_earlier, remarks_on_training
from sdclr.presentation.mined import Flags, MinedImages
from sdclr.presentation.mining.columns import CLASS, DIGEST, NEW, WANTED, digest_cell, written_names
from sdclr.presentation.progress import AnyProgress
from sdclr.run import Run


@dataclass(frozen=True)
class Known:
    """The images to rank, N including those of an earlier call, and all that is known of them but their content."""

    images: Images
    """Those listed now."""
    now: Listed
    joined: Joined
    earlier: Stored | None
    names: list[str]
    """[N]."""
    groups: Tensor | None
    """int64 [N]."""
    columns: dict[str, Sequence[str]]
    """Text by column, [N] each."""
    own_names: dict[str, str]
    """Column of the images' own table -> its name in ``columns``."""
    shown: Flags | None
    """bool [N]: which may appear on the sheet; None: all."""
    remarks: list[str]
    options: RankingOptions
    marks: GivenMarks

    def table_facts(self, mined: MinedImages) -> dict[str, Any]:
        """What mine.json records about scores.csv, for the next call that reads it."""
        written = written_names(mined)
        names = {own: written[name] for own, name in self.own_names.items() if name in written}
        return {"table_root": self.joined.root, "table_columns": names}

    def ranked(self, seen: Stored, title: str, show: AnyProgress) -> Found:
        """Rank the images by their stored features and looks."""
        return ranked(
            torch.from_numpy(seen.features),
            seen.looks,
            self.names,
            self.options,
            show,
            title=title,
            root=self.joined.root,
            groups=self.groups,
            columns=self.columns,
            shown=self.shown,
            remarks=self.remarks,
        )


def known_images(
    found: Data,
    data: DataConfig,
    request: MineRequest,
    encoder: Encoder,
    out: Path,
    show: AnyProgress,
    *,
    groups: Tensor | None,
    records: Run | None,
    trained_elsewhere: Path | str | None,
) -> Known:
    """Collect what is known; any problem with the collection is an error here, before any image is processed.

    ``trained_elsewhere``: the network's source, if it may not have been trained on these images.
    """
    images, remarks = images_and_remarks(found, data, show)
    now = listed(images)
    if trained_elsewhere is not None:
        remarks += remarks_on_training(trained_elsewhere, now)
    joined, earlier = joined_with_earlier(now, encoder, out, request.against)
    names = [one.path for one in joined.contents]
    require_enough(len(names))
    table = EarlierTable(joined, earlier)
    taken = (NEW,) if request.against is not None else ()
    columns, own_names = _columns(images, found.class_names, joined, table, taken)
    shown, shown_remarks = _shown(request, joined, columns)
    roots = [now.root if earlier is None else earlier.record.root, now.root]
    given = given_marks(images, joined, out, request.feedback, roots)
    marks = given.marks
    if marks:
        columns[WANTED] = mark_column(len(names), marks)
    options = _ranking_options(request, marks, names, joined, encoder, data)
    return Known(
        images=images,
        now=now,
        joined=joined,
        earlier=earlier,
        names=names,
        groups=groups_of(data, images, joined, table, groups),
        columns=columns,
        own_names=own_names,
        shown=shown,
        remarks=[*remarks, *joined.remarks, *shown_remarks, *given.remarks],
        options=_with_what_is_known(options, images, found.class_names, joined, records),
        marks=given,
    )


def _shown(
    request: MineRequest, joined: Joined, columns: dict[str, Sequence[str]]
) -> tuple[Flags | None, list[str]]:
    """Which images may appear on the sheet (compared with an earlier collection, the new ones), and a remark."""
    if request.against is None:
        return None, []
    is_new = joined.is_listed & (joined.stored_row < 0)
    columns[NEW] = ["yes" if new else "" for new in is_new.tolist()]
    counts = f"{int(is_new.sum()):,} images are new, of {len(is_new):,}"
    if is_new.any():
        return is_new, [f"{counts}; only these are shown, without copies and suspected junk."]
    return joined.is_listed, [f"{counts}; no image is new, so all that are listed are shown."]


def _ranking_options(
    request: MineRequest,
    marks: Marks,
    names: Sequence[str],
    joined: Joined,
    encoder: Encoder,
    data: DataConfig,
) -> RankingOptions:
    options = RankingOptions(
        request.score,
        request.scores,
        request.order,
        map=request.map,
        exact_up_to=request.exact_up_to,
    )
    if request.feedback is not None:
        return replace(options, other=by_feedback(marks), other_name="feedback")
    if request.like:
        other = by_likeness(request.like, names, joined.root, encoder, data)
        return replace(options, other=other, other_name="likeness")
    return options


def _with_what_is_known(
    options: RankingOptions,
    images: Images,
    class_names: Sequence[str],
    joined: Joined,
    records: Run | None,
) -> RankingOptions:
    """Add the labels of the images, if all have one, and a run's records of them."""
    if images.labels is not None and joined.is_listed.all():
        labels = images.labels[joined.listed_row]
        options = replace(options, labels=labels, class_names=class_names)
    if records is not None:
        num_epochs = len(records.metrics())
        recorded = read_records(records.folder, len(joined.contents), num_epochs)
        options = replace(options, records=recorded)
    return options


def _columns(
    images: Images,
    class_names: Sequence[str],
    joined: Joined,
    earlier: EarlierTable,
    taken: Sequence[str],
) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    """What else is known of each image, text [N] by column, from this and the earlier call.

    Also returns the name here of each column of the user's own tables: a ``taken`` name gets a ``_``.
    """
    rows = joined.listed_row.tolist()

    def joined_cells(cells: Sequence[Any], former: Cells) -> list[str]:
        return [
            str(cells[row]) if row >= 0 and len(cells) else former.get(place, "")
            for place, row in enumerate(rows)
        ]

    columns: dict[str, Sequence[str]] = {}
    classes = [] if images.labels is None else [class_names[c] for c in images.labels.tolist()]
    former_classes, former = earlier.known_cells()
    if classes or former_classes:
        columns[CLASS] = joined_cells(classes, former_classes)
    own = {} if images.files is None else images.files.columns
    own_names: dict[str, str] = {}
    for name in [*own, *(name for name in former if name not in own)]:
        own_names[name] = name
        while own_names[name] in (*columns, *taken):
            own_names[name] += "_"
        cells = own[name].tolist() if name in own else []
        columns[own_names[name]] = joined_cells(cells, former.get(name, {}))
    if joined.is_in_memory:
        columns[DIGEST] = [digest_cell(one.digest) for one in joined.contents]
    return columns, own_names
