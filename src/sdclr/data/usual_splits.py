"""The long-tailed CIFAR sets that most papers use, drawn from all 50,000 training images.

At imbalance ratio 100 they have 12,406 images on CIFAR-10 and 10,847 on CIFAR-100. The authors' splits (``splits``)
hold images out for validation first, begin with another class in each split, and are smaller: results of the two
families never belong in one table, and their data sets have names of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sdclr.data.splits import Positions, Split, checked_classes, class_counts, members_of_classes


def draw_usual_long_tail(
    labels: Sequence[int] | npt.NDArray[Any] | torch.Tensor,
    *,
    imbalance_ratio: float = 100,
    seed: int = 1,
) -> Split:
    """Draw int(n ratio ** (-c / (C - 1))) images of class c, where the smallest class has n; nothing is held out.

    ``labels``: [N] class ids 0 .. C - 1. Class 0 is the head and the last class the tail. NumPy's legacy generator,
    seeded with ``seed`` - 1, shuffles the images of one class after the other, as the code of LDAM-DRW (Cao et al.,
    NeurIPS 2019) does, where these sets come from: split 1 is what it draws with its seed 0. S_b and D_b are prefixes
    of the same orders. ``seed``: 1 .. 2^32. Raises ConfigError where the ratio leaves a class without an image.

    >>> split = draw_usual_long_tail(np.arange(100) % 5, imbalance_ratio=10)
    >>> np.bincount(split.long_tail % 5).tolist(), len(split.train), len(split.validation)
    ([20, 11, 6, 3, 2], 100, 0)
    """
    classes = checked_classes(labels)
    available = np.bincount(classes)
    counts = class_counts(len(available), int(available.min()), imbalance_ratio)
    generator = np.random.RandomState(seed - 1)
    orders: list[Positions] = []
    for members in members_of_classes(classes):
        members = members.copy()  # a view of one array
        generator.shuffle(members)
        orders.append(members)
    balanced, few = sum(counts) // len(counts), min(counts)
    return Split(
        long_tail=np.concatenate([order[:n] for order, n in zip(orders, counts, strict=True)]),
        balanced=np.concatenate([order[:balanced] for order in orders]),
        few_shot=np.concatenate([order[:few] for order in orders]),
        train=np.arange(len(classes)),
        validation=np.zeros(0, dtype=np.int64),
        number=seed,
        source="generated",
        seed=seed,
        profile="exponential",
        imbalance_ratio=float(imbalance_ratio),
    )
