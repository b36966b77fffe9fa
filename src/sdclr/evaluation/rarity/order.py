"""A score -> the order in which images are shown.

N images.
"""

from __future__ import annotations

from torch import Tensor

from sdclr.errors import DataError


def rarest_first(score: Tensor) -> Tensor:
    """Rows from the highest score to the lowest, int64 [N]; ties keep their order.

    >>> import torch
    >>> rarest_first(torch.tensor([1.0, 3.0, 3.0])).tolist()
    [1, 2, 0]
    """
    if score.isnan().any():
        first = int(score.isnan().nonzero()[0])
        raise DataError(
            f"the score of {int(score.isnan().sum())} images is NaN, of row {first} first."
        )
    return score.argsort(descending=True, stable=True)
