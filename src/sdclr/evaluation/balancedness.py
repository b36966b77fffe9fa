"""How evenly a representation serves the classes: groups, their spread, and differences over splits.

C classes. Accuracies are fractions in [0, 1]. All standard deviations are population ones (ddof 0), as in the
paper. Balancedness is the spread of the groups' accuracies: LOWER IS BETTER. This file reads no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sdclr.errors import DataError
from sdclr.safe_text import shown

GroupConvention = Literal["thirds", "thresholds"]
GROUPS = ("many", "medium", "few")


OF_DATA: dict[str, GroupConvention] = {"cifar": "thirds", "imagenet": "thresholds"}
"""data.conventions of a data set -> its group convention."""


def class_groups(train_counts: Sequence[int], convention: GroupConvention) -> dict[str, list[int]]:
    """The class ids of each group, by the number of long-tailed training images.

    ``thirds`` (the paper's CIFAR convention): classes sorted by count; the rarest ``C // 3`` are few, the next
    ``C // 3`` medium, the rest many. With two classes, the rarer is few and the other many; a
    single class is many. ``thresholds`` (ImageNet family): many > 100 images, medium 20-100, few < 20.
    A group may be empty: medium with two classes, any group under ``thresholds``.
    """
    counts = np.asarray(train_counts)
    are_numbers = counts.ndim == 1 and counts.dtype.kind in "iuf"
    if not are_numbers or not (np.isfinite(counts) & (counts >= 0)).all():
        raise DataError(
            f"training counts must be numbers of images, one for each class, got {shown(train_counts, 80)}."
        )
    if convention == "thirds" and len(counts) < 3:
        order = np.argsort(counts, kind="stable").tolist()
        return {"many": order[-1:], "medium": [], "few": order[:-1]}
    if convention == "thirds":
        order, third = np.argsort(counts, kind="stable"), len(counts) // 3
        parts = {
            "many": order[2 * third :],
            "medium": order[third : 2 * third],
            "few": order[:third],
        }
    elif convention == "thresholds":
        parts = {
            "many": np.flatnonzero(counts > 100),
            "medium": np.flatnonzero((counts >= 20) & (counts <= 100)),
            "few": np.flatnonzero(counts < 20),
        }
    else:
        raise DataError(f"group convention must be 'thirds' or 'thresholds', got {convention!r}.")
    return {name: [int(c) for c in parts[name]] for name in GROUPS}


@dataclass(frozen=True)
class Balancedness:
    """One model on one split. Every accuracy is a fraction in [0, 1]; ``nan`` for an empty group.

    >>> found = balancedness([0.9, 0.6, 0.3], [500, 50, 5], "thirds")
    >>> found.many, found.few, round(found.group_std, 3)
    (0.9, 0.3, 0.245)
    """

    all: float
    """Mean of the per-class accuracies."""
    many: float
    medium: float
    few: float
    group_std: float
    """Population std of (many, medium, few): the paper's balancedness. Lower is better. Empty groups are left out."""
    class_std: float
    """Population std over the classes. Lower is better."""
    gap: float
    """many - few."""
    worst_class: float


def balancedness(
    per_class_accuracy: Sequence[float | None],
    train_counts: Sequence[int],
    convention: GroupConvention,
) -> Balancedness:
    """Summarise per-class accuracies [C], grouped by the long-tailed training counts [C].

    ``convention`` has no default: CIFAR and ImageNet use different groups. An evaluation records its own; use
    :meth:`Evaluation.balancedness <sdclr.evaluation.results.Evaluation.balancedness>`.

    Use the long-tailed counts also for a model pre-trained on the balanced set, as the paper does. A class that was
    not tested (None) belongs to its group but counts in no mean.
    Raises DataError if the lengths differ, an accuracy is outside [0, 1] or nan, or no class was tested.

    >>> found = balancedness([0.9, 0.7, 0.3], [500, 200, 50], "thirds")
    >>> found.many, found.few, round(found.group_std, 3)
    (0.9, 0.3, 0.249)
    """
    if isinstance(per_class_accuracy, Mapping | Set | Iterator):
        raise DataError(
            "balancedness takes a list or an array of accuracies in the order of the classes, "
            f"got a {type(per_class_accuracy).__name__}."
        )
    tested = np.array([value is not None for value in per_class_accuracy], dtype=bool)
    accuracy = np.array(
        [0.0 if value is None else value for value in per_class_accuracy], dtype=np.float64
    )
    if accuracy.shape != (len(train_counts),) or not len(accuracy):
        raise DataError(
            f"balancedness needs one accuracy and one training count for each class, "
            f"got {accuracy.shape} accuracies and {len(train_counts)} counts."
        )
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise DataError(
            f"per-class accuracies must be fractions in [0, 1], got {accuracy.min():g} .. {accuracy.max():g}. "
            "Divide percentages by 100; give None for classes without test images."
        )
    if not tested.any():
        raise DataError("balancedness needs at least one class that was tested.")
    groups = {
        name: [c for c in ids if tested[c]]
        for name, ids in class_groups(train_counts, convention).items()
    }
    means = {
        name: float(accuracy[ids].mean()) if ids else float("nan") for name, ids in groups.items()
    }
    accuracy = accuracy[tested]
    present = [m for m in means.values() if not np.isnan(m)]
    return Balancedness(
        all=float(accuracy.mean()),
        **means,
        group_std=float(np.std(present))
        if len(present) > 1
        else float("nan"),  # a single group has no spread
        class_std=float(accuracy.std()),
        gap=means["many"] - means["few"],
        worst_class=float(accuracy.min()),
    )
