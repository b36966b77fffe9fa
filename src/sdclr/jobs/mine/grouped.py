"""Which images belong together, those of an earlier collection among them.

N images of now and of an earlier call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sdclr.data import DataConfig, Images
from sdclr.data.grouping import group_names
from sdclr.data.sources.tables import Table, read_table
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity.neighbours import most_neighbours
from sdclr.jobs.mine.collection import Joined
from sdclr.jobs.mine.folder import SCORES_FILE, Stored
from sdclr.presentation.mining.columns import OWN_COLUMNS
from sdclr.safe_text import as_text, one_line, shown


def groups_of(
    data: DataConfig, images: Images, joined: Joined, earlier: Stored | None, given: Tensor | None
) -> Tensor | None:
    """int64 [N]: as ``given``, or as data.group_by says; None where neither does.

    A pattern or ``folder`` is looked for in the path below the root of both collections. A column is that of the
    images' own table and, for images that only the earlier call had, that of its scores.csv; ConfigError where it has
    none.
    """
    by = data.group_by
    if by is None:
        return None if given is None else _usable(given, len(joined.contents))
    if given is not None:
        raise ConfigError("groups and data.group_by say the same thing; give one of them.")
    columns = {} if images.files is None else images.files.columns
    known: dict[str, Sequence[str]] = {}
    if by in columns:
        # as scores.csv has them
        cells = [one_line(as_text(str(cell))) for cell in columns[by].tolist()]
        former = _earlier_column(by, joined, earlier)
        known[by] = [
            cells[row] if row >= 0 else former[place]
            for place, row in enumerate(joined.listed_row.tolist())
        ]
    names = None if images.files is None else [one.path for one in joined.contents]
    found = group_names(names, by, known or columns).of_image
    if len(np.unique(found)) == 1:
        raise DataError(
            f"data.group_by={shown(by, 80)} puts all {len(found)} images into one group, so no image has a "
            "neighbour outside its own. Give finer groups, or leave it out."
        )
    return torch.from_numpy(found)


def _usable(given: Tensor, num_images: int) -> Tensor:
    """``given`` as int64 [N]; DataError for what groups no images, before any is looked at."""
    groups = torch.as_tensor(given)
    if groups.dim() != 1 or groups.is_floating_point() or groups.is_complex():
        raise DataError(
            f"groups must be one whole number an image, [{num_images}], got {groups.dtype} {list(groups.shape)}."
        )
    most_neighbours(num_images, groups)
    return groups.long()


def _earlier_column(by: str, joined: Joined, earlier: Stored | None) -> Mapping[int, str]:
    """Row of N -> the cell of the earlier scores.csv, of images that are not listed now."""
    rows = np.flatnonzero(~joined.is_listed).tolist()
    if not rows:
        return {}
    assert earlier is not None
    scores = earlier.folder / SCORES_FILE
    table = read_table(scores, known=("path", "score"))
    written = _written_name(by, earlier, table)
    if written is None or not {"path", written} <= set(table.columns):
        raise ConfigError(
            f"data.group_by={shown(by, 80)}: {shown(scores)} has no such column, so the groups of the earlier "
            "collection are not known. Mine all images together, or leave it out."
        )
    cell_of = dict(zip(table.columns["path"], table.columns[written], strict=True))
    paths = [one_line(as_text(one.path)) for one in earlier.contents]
    return {row: cell_of.get(paths[joined.stored_row[row]], "") for row in rows}


def _written_name(by: str, earlier: Stored, table: Table) -> str | None:
    """What the earlier scores.csv calls a column of the user's; None where it has none."""
    names = earlier.record.table_columns
    if names is not None:
        return one_line(as_text(names[by])).strip() if by in names else None
    if f"{by}_" in table.columns:  # of an earlier version: a name that was taken got a _
        return f"{by}_"
    return None if by in OWN_COLUMNS else by
