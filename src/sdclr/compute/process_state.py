"""State that a process has only once: torch's default random generators, the warning filters, the allocator.

A library call leaves all of it unchanged, and two calls in two threads do not disturb each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    # code that also locks random and NumPy (data/views/own.py) does so first, and takes _GENERATORS after them
_GENERATORS, _FILTERS = threading.RLock(), threading.RLock()


@contextlib.contextmanager
def default_generators(seed: int, device: torch.device) -> Iterator[None]:
    """torch's default generators start from ``seed`` inside, and afterwards continue as if nothing had been drawn.

    For code that can only draw from them: initial weights, dropout. Our other threads wait until the block ends.
    """
    import torch

    index = device.index or 0 if device.type == "cuda" else None
    with _GENERATORS, torch.random.fork_rng(devices=[] if index is None else [index]):
        torch.default_generator.manual_seed(seed)
        if index is not None:
            torch.cuda.default_generators[index].manual_seed(seed)
        if device.type != "mps":
            yield
            return
        before = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)


@contextlib.contextmanager
def silenced_warnings(message: str = "") -> Iterator[None]:
    """Hide warnings whose text starts with a match of the regular expression ``message``, inside the block."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """The texts of the warnings given inside the block, instead of showing them."""
    texts: list[str] = []
    with _FILTERS, warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield texts
        texts += [str(one.message) for one in found]


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system: else every CPU step pays for page faults.

    A step on a CPU is 15-50 % faster; the process then stays at its peak size until it ends. So the choice is the
    program's, and no other function of this package calls it: the command line does, a script may. Does nothing without
    glibc.

    >>> keep_freed_memory()  # once, at the start of a script that trains on a CPU
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
