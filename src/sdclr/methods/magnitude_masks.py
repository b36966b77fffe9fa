"""Which weights are kept: the largest magnitudes by one threshold, found exactly and fast on each device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdclr.errors import ConfigError
from sdclr.safe_text import shown


def magnitude_masks(weights: Iterable[Tensor], prune_ratio: float) -> list[Tensor]:
    """bool masks of the weights' shapes that keep the largest magnitudes by ONE threshold for all of them.

    A weight is kept if |w| >= the ceil(prune_ratio * n)-th smallest of all n magnitudes (0-based, at most n - 1),
    so ties at the threshold are all kept and at least one weight always survives. NaN is kept: a mask would hide it.
    Raises ConfigError if there are no numbers, and for complex or integer ones.
    """
    weights = [w.detach() for w in weights]
    if not any(w.numel() for w in weights) or not all(w.is_floating_point() for w in weights):
        raise ConfigError(
            "magnitude_masks needs weights of real floating-point numbers, at least one, got "
            f"{shown([(list(w.shape), w.dtype) for w in weights], 80)}."
        )
    flat = [_as_they_lie(w) for w in weights]
    magnitudes = _magnitudes(flat)
    k = min(math.ceil(prune_ratio * magnitudes.numel()), magnitudes.numel() - 1)
    threshold = _smallest(magnitudes, k)  # exact with ties, unlike an interpolating quantile
    kept = (magnitudes < threshold).logical_not_().split([w.numel() for w in weights])
    return [_laid_out(part, w) for part, w in zip(kept, weights, strict=True)]


def _as_they_lie(weight: Tensor) -> Tensor:
    """Its numbers in memory order, [n]: a view if they are contiguous in memory."""
    return weight.as_strided((weight.numel(),), (1,)) if _is_dense(weight) else weight.flatten()


def _laid_out(part: Tensor, weight: Tensor) -> Tensor:
    """Numbers in the order of :func:`_as_they_lie` in the weight's shape and, if it is dense, its layout."""
    if _is_dense(weight):
        return part.as_strided(weight.shape, weight.stride(), part.storage_offset())
    return part.view(weight.shape)


def _is_dense(weight: Tensor) -> bool:
    """Whether its numbers fill a block of memory, in any order of the dimensions (channels_last, for example)."""
    expected = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return expected == weight.numel()


def _magnitudes(flat: Sequence[Tensor]) -> Tensor:
    """All |w| one after another, [n]."""
    if len({part.dtype for part in flat}) != 1 or flat[0].device.type != "cpu":
        return torch.cat(list(flat)).abs_()  # cat promotes mixed precisions
    result = flat[0].new_empty(sum(part.numel() for part in flat))  # each number is written once
    for part, place in zip(flat, result.split([part.numel() for part in flat]), strict=True):
        torch.abs(part, out=place)
    return result


def _smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of values [n], 0-based, as a scalar: exact on every path."""
    if values.device.type != "cpu":
        # kthvalue gives one block of threads to the whole tensor, 20 times slower at 10^8 numbers
        # (pytorch issue 75599); a sort uses them all, and neither waits for the host
        return values.sort().values[k].clone()
    if values.dtype not in (torch.float32, torch.float64):  # NumPy has no bf16
        return values.kthvalue(k + 1).values  # 1-based
    return torch.as_tensor(_smallest_of(values.numpy(), k), dtype=values.dtype)


SAMPLED = 1 << 16
"""Numbers in the sample that bounds the k-th smallest; smaller arrays are searched whole."""


def _smallest_of(array: npt.NDArray[Any], k: int) -> Any:
    """The k-th smallest number of an array, 0-based.

    A sorted sample gives two bounds that almost certainly enclose the number; the values between them
    are counted and searched. This takes a third of the time of NumPy's partition of the whole array,
    which is the fallback if the bounds miss (or if NaN makes them useless).
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
