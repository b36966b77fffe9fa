"""Which training images have a label where labels are few: drawn from a seed.

Labels and numbers in, positions out; this file opens no images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.data.splits import Positions, members_of_classes


def draw_labelled(labels: Positions, per_class: Sequence[int], seed: int) -> Positions:
    """Positions of ``per_class[c]`` images of each class c, ascending.

    ``labels`` int64 [N]; each class must have that many images. A prefix of one random order of each class is taken, so
    that for one seed a larger set contains the smaller ones, whatever the other classes get.

    >>> draw_labelled(np.array([0, 0, 0, 1, 1]), [1, 2], seed=1).tolist()
    [1, 3, 4]
    """
    drawn = []
    of_class = members_of_classes(labels, len(per_class))
    for c, (members, wanted) in enumerate(zip(of_class, per_class, strict=True)):
        assert wanted <= len(members)
        order = permutation(derive(seed, Stream.LABELS, c), len(members)).numpy()
        drawn.append(members[order[:wanted]])
    return np.sort(np.concatenate(drawn))
