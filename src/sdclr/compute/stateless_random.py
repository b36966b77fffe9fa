"""Random numbers that are a pure function of their counters, so that nothing has to be saved or replayed.

The same (seed, counters) gives the same bits on every device, in every process and for any batch composition:
resuming, splitting the batch over ranks and changing worker counts cannot change a draw. The mixer is splitmix64
(Steele, Lea, Flood 2014) on wrapping int64 tensors. Not for cryptography.
"""

from __future__ import annotations

import operator
from enum import IntEnum

import torch
from torch import Tensor

from sdclr.config import LARGEST_SEED
from sdclr.errors import ConfigError


class Stream(IntEnum):
    """The use of a key; every use has its own number, so that no two share their randomness."""

    TEST_SET = 1
    VALIDATION = 2
    CLASS_ORDER = 3
    IMAGE_ORDER = 4
    EPOCH_ORDER = 5
    VIEWS = 6
    WEIGHTS = 7
    STEP = 8
    PRUNING = 9
    PROBE = 10
    FOLDS = 11
    EXAMINATION = 12
    RARITY = 13
    OPERATIONS = 14
    DIRECTIONS = 15
    CLUSTERS = 16
    HEALTH = 17
    LABELS = 18
    CHANNELS = 19
    OWN_VIEWS = 20


_GAMMA = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


_M1, _M2, _STRIDE = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB), _signed(_GAMMA)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64 shifts copy the sign bit; masking makes the shift logical
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _M1
    x = (x ^ _shift_right(x, 27)) * _M2
    return x ^ _shift_right(x, 31)


def _mix_int(x: int) -> int:
    x &= _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def derive(*counters: int) -> int:
    """One non-negative 63-bit key from any number of integers of 64 bits; order matters.

    Raises ConfigError for anything but integers and for larger ones: two that differ by 2**64 would give the same key.
    """
    try:
        counters = tuple(map(operator.index, counters))  # NumPy's integers would overflow
    except TypeError:
        raise ConfigError(
            f"seeds and counters must be whole numbers, got {', '.join(map(repr, counters))[:80]}."
        ) from None
    for counter in counters:
        if not -LARGEST_SEED - 1 <= counter <= LARGEST_SEED:
            raise ConfigError(
                f"seeds and counters must lie between -2**63 and 2**63 - 1, got {counter}."
            )
    key = 0
    for counter in counters:
        key = _mix_int((key + _GAMMA) ^ _mix_int(counter + _GAMMA))
    return key >> 1


def random_bits(key: int, index: Tensor) -> Tensor:
    """int64 of index's shape: 64 random bits for every int64 counter in ``index``, on its device."""
    if index.device.type == "mps":
        return random_bits(key, index.cpu()).to(index.device)
    return _mix(_mix(index * _STRIDE + _signed(key)) + _STRIDE)


def uniforms(key: int, index: Tensor, count: int) -> Tensor:
    """float32 [B, count] in [0, 1) for int64 counters ``index`` [B]: multiples of 2**-24, exact on every device."""
    if index.device.type == "mps":
        # whether its integers wrap at 64 bits, as they must, is untested
        return uniforms(key, index.cpu(), count).to(index.device)
    streams = torch.arange(1, count + 1, device=index.device, dtype=torch.int64) * _STRIDE
    bits = _mix(_mix(index * _STRIDE + _signed(key)).unsqueeze(1) + streams)
    return _shift_right(bits, 40).to(torch.float32) * (2.0**-24)


def permutation(key: int, n: int) -> Tensor:
    """int64 [n] on the CPU: a uniformly random order of range(n)."""
    return torch.argsort(random_bits(key, torch.arange(n, dtype=torch.int64)), stable=True)
