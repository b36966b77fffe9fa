"""The mining signal of a run: how well its image records identify the images of few-shot classes.

N training images, E epochs. Uses RUN/image_records.f32 and the labels; without records there is no signal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdclr.data import build_data
from sdclr.errors import DataError
from sdclr.evaluation.balancedness import OF_DATA, class_groups
from sdclr.evaluation.rarity.judging import auroc
from sdclr.image_records import COLUMNS, read_records
from sdclr.workflows.matrix import Cell

LOW_IS_RARE = frozenset({"hardest_mass"})
"""Columns in which a low value indicates a rare image."""
MOST_EPOCHS = 25
"""The most epochs of a long run, evenly spread, including the first and the last."""


def mining_signal(cell: Cell) -> list[dict[str, Any]]:
    """By epoch: column of the image records -> AUROC of few against all other training images.

    Empty for a run without records, and for images without labels or few-shot classes. Raises DataError if the
    records are damaged.
    """
    if not cell.config.record_images:
        return []
    data = build_data(cell.config.data)
    labels = data.pretraining_images(cell.config.data.subset).labels
    if labels is None or data.split is None or data.train.labels is None:
        return []
    counts = data.split.counts("long_tail", data.train.labels, len(data.class_names))
    few = np.isin(labels, class_groups(counts, OF_DATA[data.conventions])["few"])
    if not few.any() or few.all():
        return []
    records = read_records(cell.run.folder, len(labels), len(cell.run.metrics()))
    return [
        {"epoch": epoch + 1, "auroc": _aurocs(records.values[epoch], few)}
        for epoch in spread(records.num_epochs)
    ]


def _aurocs(values: Any, few: Any) -> dict[str, float]:
    """``values`` [N, columns] of one epoch; images that it left out are not counted."""
    found = {}
    for number, column in enumerate(COLUMNS):
        score = values[:, number].astype(np.float64)
        met = ~np.isnan(score)
        wanted = few[met]
        if not wanted.any() or wanted.all():
            continue
        sign = -1.0 if column in LOW_IS_RARE else 1.0
        if not np.isfinite(score[met]).all():
            raise DataError(f"the records of the images hold infinite values of {column}.")
        found[column] = round(auroc(sign * score[met], wanted), 5)
    return found


def spread(num_epochs: int) -> list[int]:
    """At most MOST_EPOCHS of the epochs 0 .. num_epochs - 1.

    >>> spread(3)
    [0, 1, 2]
    """
    places = np.linspace(0, num_epochs - 1, min(num_epochs, MOST_EPOCHS)).round()
    return [int(place) for place in places]
