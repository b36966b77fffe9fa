"""Which images belong together, including those of an earlier collection.

N images of this and of an earlier call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sdclr.data import DataConfig, Images
from sdclr.data.grouping import column_called, group_names
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity.neighbours import most_neighbours
from sdclr.jobs.mine.collection import Joined
from sdclr.jobs.mine.earlier_table import EarlierTable
from sdclr.safe_text import shown, table_text


def groups_of(
    data: DataConfig, images: Images, joined: Joined, earlier: EarlierTable, given: Tensor | None
) -> Tensor | None:
    """int64 [N]: from ``given`` or data.group_by; None if neither is set.

    A pattern or ``folder`` is applied to the path below the root of both collections. A column is that of the
    images' own table and, for images that only the earlier call had, that of its scores.csv; raises ConfigError if
    the latter has no such column.
    """
    by = data.group_by
    if by is None:
        return None if given is None else _usable(given, len(joined.contents))
    if given is not None:
        raise ConfigError("groups and data.group_by say the same thing; give one of them.")
    columns = {} if images.files is None else images.files.columns
    known: dict[str, Sequence[str]] = {}
    if (column := column_called(by, columns)) is not None:
        by = column
        # as scores.csv writes them
        cells = [table_text(str(cell)) for cell in columns[by].tolist()]
        former = earlier.group_cells(by)
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
    """``given`` as int64 [N]; raises DataError for invalid groups, before any image is processed."""
    groups = torch.as_tensor(given)
    if groups.dim() != 1 or groups.is_floating_point() or groups.is_complex():
        raise DataError(
            f"groups must be one whole number an image, [{num_images}], got {groups.dtype} {list(groups.shape)}."
        )
    most_neighbours(num_images, groups)
    return groups.long()
