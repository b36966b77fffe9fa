"""What this machine can do and how much of it is used: matmul peak, FLOPs, peak memory, a name for files."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.rounds import Action, timed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; a CPU without them emulates it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    )


def matmul_side(device: torch.device) -> int:
    """Large enough to reach the peak, small enough for a tenth of a second."""
    return 8192 if device.type == "cuda" else 2048


def matmul(device: torch.device, precision: str) -> Action:
    """One square product; of fp32 on CUDA in TF32, as cuDNN's convolutions are."""
    side = matmul_side(device)
    a, b = (torch.rand(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    product = timed(lambda: torch.mm(a, b, out=out), device)

    def action() -> float:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
        try:
            return product()
        finally:
            torch.set_float32_matmul_precision(before)

    return action


def flops_of(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes ``work`` takes at its peak beyond what lies ready before it; None where that cannot be seen."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with contextlib.suppress(OSError, AttributeError):
        # what earlier work freed must not hide what this takes
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        work()
        return max(_resident("VmHWM") - before, 0)
    work()
    return None


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def file_name(date: str, hardware: str, work: str = "") -> str:
    """``2026-11-23-amd-epyc-2-threads.json`` of a date and describe_device's words; ``work``: what is not the usual."""
    words = re.sub(r"\(R\)|\(TM\)|^CPU:|^CUDA:|of \d+ threads", " ", hardware).lower()
    threads = "-threads" if "threads" in hardware else ""
    work = "".join(f"-{word}" for word in re.findall(r"[a-z0-9]+", work.lower()))
    return f"{date}-{'-'.join(re.findall(r'[a-z0-9]+', words))}{threads}{work}.json"
