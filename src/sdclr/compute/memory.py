"""How much memory is free, on a device or on this machine, and how much this process has used at its peak."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path

import torch


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are available: of the CUDA device, or of this machine (including its page cache)."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_of_machine()


def free_memory_of_machine() -> int:
    """Bytes that this process can still allocate; a limit of its container counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(
            1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
        )
        return int(min(free, _free_in_container()))
    except (OSError, StopIteration):
        return _free_elsewhere()


def _free_elsewhere() -> int:
    """Free bytes where there is no /proc/meminfo; half of the total where only that is known, else 2 GB."""
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            return int(share * os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))
    return 2 * 10**9


def _free_in_container() -> float:
    """Bytes that a container's limit (cgroup 2) leaves; infinite without one."""
    folder = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is not a number
        return int((folder / "memory.max").read_text()) - int(
            (folder / "memory.current").read_text()
        )
    return math.inf


def peak_process_memory() -> int:
    """Bytes this process has used at its peak; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
