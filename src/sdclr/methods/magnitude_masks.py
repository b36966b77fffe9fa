"""Which weights are kept: the largest magnitudes under one threshold, found exactly and fast on each device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def magnitude_masks(weights: Iterable[Tensor], prune_ratio: float) -> list[Tensor]:
    """bool masks of the weights' shapes that keep the largest magnitudes under ONE threshold for all of them.

    A weight is kept when |w| >= the ceil(prune_ratio * n)-th smallest of all n magnitudes (0-based, at most n - 1),
    so ties at the threshold are all kept and at least one weight always survives.
    """
    weights = [w.detach() for w in weights]
    magnitudes = _magnitudes(weights)
    k = min(math.ceil(prune_ratio * magnitudes.numel()), magnitudes.numel() - 1)
    threshold = _smallest(magnitudes, k)  # exact with ties, unlike an interpolating quantile
    return [w.abs() >= threshold for w in weights]


def _magnitudes(weights: Sequence[Tensor]) -> Tensor:
    """All |w| one after another, [n], each written once."""
    dtypes = {w.dtype for w in weights}
    if len(dtypes) != 1:  # of mixed precisions cat finds the common one
        return torch.cat([w.abs().flatten() for w in weights])
    result = weights[0].new_empty(sum(w.numel() for w in weights))
    for w, part in zip(weights, result.split([w.numel() for w in weights]), strict=True):
        torch.abs(w.flatten(), out=part)
    return result


def _smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of values [n], 0-based, as a scalar: one exact number, however it is found."""
    if values.device.type != "cpu":
        # kthvalue gives one block of threads to the whole tensor, 20 times slower at 10^8 numbers
        # (pytorch issue 75599); a sort uses them all, and neither waits for the host
        return values.sort().values[k].clone()
    if values.dtype not in (torch.float32, torch.float64):  # NumPy has no bf16
        return values.kthvalue(k + 1).values  # 1-based
    return torch.as_tensor(_smallest_of(values.numpy(), k), dtype=values.dtype)


SAMPLED = 1 << 16
"""Numbers from which a sample of that many tells where the k-th smallest lies."""


def _smallest_of(array: npt.NDArray[Any], k: int) -> Any:
    """The k-th smallest number of an array, 0-based.

    A sorted sample gives two bounds that the number lies between, all but certainly; what lies
    between them is counted and searched. A third of the time of NumPy's partition of everything, to
    which it returns where the bounds miss (or where NaN makes them useless).
    """
    n = len(array)
    if n > SAMPLED:
        sample = np.sort(array[:: max(1, n // SAMPLED)])
        near, reach = k * len(sample) // n, 4 * math.isqrt(len(sample))
        low = sample[max(0, near - reach)]
        high = sample[min(len(sample) - 1, near + reach)]
        below = int(np.count_nonzero(array < low))
        between = array[(array >= low) & (array <= high)]
        if below <= k < below + len(between):
            return np.partition(between, k - below)[k - below]
    return np.partition(array, k)[k]
