"""Which device computes, in which precision, and what to say when its memory runs out."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdclr.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp64"]
MemoryFormat = Literal["auto", "channels_last", "contiguous"]


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises ConfigError for anything that cannot run here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}.") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported: the views need 64-bit floats. Use cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices.")
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """``auto`` is bf16 autocast on a CUDA device that has it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bf16 autocast when ``precision`` says so; parameters and losses stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def resolve_compile(choice: bool | Literal["auto"], device: torch.device) -> bool:
    """``auto`` compiles on CUDA only: a CPU gains a few percent a step for minutes of compiling."""
    return device.type == "cuda" if choice == "auto" else choice


def compiled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """``function`` as one graph of torch.compile; where that fails, the function itself, after one warning.

    Shapes are static: every new one is compiled once more, up to torch's limit (8). What fails to compile for the
    backward pass alone fails there, outside of this function.
    """
    from torch._dynamo import exc as dynamo  # here: the compiler is slow to import
    from torch._inductor.exc import InductorError

    too_many = getattr(dynamo, "FailOnRecompileLimitHit", dynamo.TorchDynamoException)  # shapes; not in every torch
    failures = (dynamo.TorchDynamoException, InductorError, too_many)
    # full fp32 is meant; the other one is torch 2.14 warning of itself
    for message in ("TensorFloat32 tensor cores", "`torch._prims_common.check` is deprecated"):
        warnings.filterwarnings("ignore", message=message)
    chosen = torch.compile(function, fullgraph=True, dynamic=False)

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal chosen
        try:
            return chosen(*args, **kwargs)
        except failures as error:  # raised before anything was computed
            chosen = function
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            warnings.warn(f"{name} runs uncompiled, because torch.compile failed: {reason}", stacklevel=2)
        return function(*args, **kwargs)

    return call


def describe_device(device: torch.device) -> str:
    """For reports: ``CPU: <model>, 2 threads`` or the CUDA device's name."""
    if device.type == "cuda":
        return f"CUDA: {torch.cuda.get_device_name(device)}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"CPU: {model}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def free_memory(device: torch.device) -> int:
    """Bytes of memory that can be had: of the CUDA device, or of this machine (what its page cache would give back)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return int(min(free, _free_in_container()))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_in_container() -> float:
    """Bytes that a container's limit (cgroup 2) leaves; infinite without one."""
    folder = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    return math.inf


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the system: else every CPU step pays for page faults.

    Does nothing where there is no glibc. The process then stays at its peak size until it ends.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def resolve_memory_format(choice: MemoryFormat, network: nn.Module, device: torch.device) -> torch.memory_format:
    """``auto`` is channels_last, except on a CPU for networks on which its backward pass corrupts memory.

    Seen with torch 2.15 and oneDNN on AVX-512: the gradient of a strided 1 x 1 convolution with fewer than 16 input
    channels writes outside its buffers for odd batches on several threads. Raises ConfigError when it is asked for.
    """
    unsafe = device.type == "cpu" and any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 16
        for m in network.modules()
    )
    if choice == "channels_last" and unsafe:
        raise ConfigError(
            "memory_format=channels_last can crash on a CPU with this backbone: it has strided 1 x 1 convolutions of "
            "fewer than 16 channels. Use memory_format=auto, or a wider backbone."
        )
    return torch.contiguous_format if choice == "contiguous" or unsafe else torch.channels_last


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn an allocator's failure into one sentence that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not out_of_memory and "can't allocate memory" not in text and "not enough memory" not in text:
            raise
        raise ConfigError(
            f"out of memory: {text.splitlines()[0] if text else 'allocation failed'}. {advice}"
        ) from error


class LateAnswer:
    """A boolean of the device on its way to the host: asked for now, read a step later, while the device is busy."""

    def __init__(self, answer: Tensor) -> None:
        self._value = answer.to("cpu", non_blocking=True, copy=True)
        self._arrived = torch.cuda.Event() if answer.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(answer.device))

    def read(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
