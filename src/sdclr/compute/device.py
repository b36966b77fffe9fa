"""Which device computes, in which precision and layout, and the error when its memory runs out."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from sdclr.compute.device_choices import MemoryFormat, Precision
from sdclr.errors import ConfigError

Network = TypeVar("Network", bound=nn.Module)


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises ConfigError for anything that cannot run here.

    Apple's GPU has to be named (mps): this package has not been run on one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}.") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device {name!r} is not supported. Use cpu, cuda, cuda:N or mps.")
    if device.type == "mps" and (device.index or not mps_is_available()):
        raise ConfigError(
            f"device {name!r} was requested, but torch sees no Apple GPU here. Use cpu, or mps on a Mac with "
            "Apple silicon and macOS 14 or later."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} was requested, but torch sees {torch.cuda.device_count()} CUDA devices."
        )
    return device


def mps_is_available() -> bool:
    """Whether torch can compute on an Apple GPU here; before macOS 14 it lacks bf16 and more."""
    return torch.backends.mps.is_available() and torch.backends.mps.is_macos_or_newer(14, 0)


def has_float64(device: torch.device) -> bool:
    """Whether the device supports 64-bit floats; Apple's GPU does not."""
    return device.type != "mps"


def widest_float(device: torch.device) -> torch.dtype:
    """The dtype for sums over many numbers that stay on the device."""
    return torch.float64 if has_float64(device) else torch.float32


def in_float64(values: Tensor) -> Tensor:
    """The values in float64, on the CPU where their device does not support it."""
    return values.double() if has_float64(values.device) else values.cpu().double()


def device_of_draws(device: torch.device) -> torch.device:
    """The device for draws that need 64 bits, for views on ``device``: that one, or the CPU where it has no float64."""
    return device if has_float64(device) else torch.device("cpu")


def placed_on(network: Network, device: torch.device) -> Network:
    """The network on ``device``, in the layout in which it computes features there."""
    network = network.to(device)
    # on Apple's GPU only the default layout is used, as others are untested
    return network if device.type == "mps" else network.to(memory_format=torch.channels_last)


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """``auto`` is bf16 autocast on a CUDA device that has it, else fp32.

    Never bf16 on a CPU: a recipe has to give the same numbers on every machine. For a user's own images, whose settings
    depend on the machine, ``recipes.own_images`` chooses by ``bf16_speedup_of_cpu`` and puts the result into the
    config.
    """
    if precision == "fp64" and not has_float64(device):
        raise ConfigError(f"precision=fp64 cannot run on {device}, which has no 64-bit floats.")
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def bf16_speedup_of_cpu() -> float:
    """How many times as fast as in fp32 this CPU does a convolution, forward and backward, in bf16.

    Measured in CPU time, which other load hardly affects: the minimum of seven turns, a tenth of a second in all. 0.0
    where the CPU has no instructions for bf16, which it would then emulate.
    """
    if not _cpu_has_bf16():
        return 0.0
    turns = {dtype: _convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in turns}
    for _ in range(8):
        for dtype, work in turns.items():
            begun = time.process_time()
            work()
            seconds[dtype].append(time.process_time() - begun)
    fp32, bf16 = (min(found[1:]) for found in seconds.values())  # the first turn plans the kernels
    return fp32 / max(bf16, 1e-9)


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _convolution(dtype: torch.dtype) -> Callable[[], object]:
    """The forward and backward of a layer from the middle of a ResNet, on 4 images of 128 channels and 16 px."""
    images, weight = (
        torch.ones(4, 128, 16, 16, dtype=dtype),
        torch.ones(128, 128, 3, 3, dtype=dtype),
    )
    images = images.to(memory_format=torch.channels_last).requires_grad_()
    weight = weight.to(memory_format=torch.channels_last).requires_grad_()

    def work() -> object:
        with torch.enable_grad():
            out = torch.nn.functional.conv2d(images, weight, padding=1)
        return torch.autograd.grad(out, (images, weight), torch.ones_like(out))

    return work


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bf16 autocast for precision bf16; parameters and losses stay in fp32."""
    return (
        torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    )


def describe_device(device: torch.device) -> str:
    """For reports: ``CPU: <model>, 2 of 4 threads`` or the GPU's name."""
    if device.type == "cuda":
        return f"CUDA: {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return f"MPS: the GPU of a Mac ({platform.machine()})"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
            model,
        )
    return f"CPU: {model}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def resolve_memory_format(
    choice: MemoryFormat, network: nn.Module, device: torch.device
) -> torch.memory_format:
    """``auto`` is channels_last, but contiguous on Apple's GPU, and on a CPU where channels_last corrupts memory.

    Seen with torch 2.15 and oneDNN on AVX-512: the gradient of a strided 1 x 1 convolution with fewer than 16 input
    channels writes outside its buffers for odd batches on several threads. Raises ConfigError when it is requested
    there.
    """
    unsafe = device.type == "cpu" and any(
        isinstance(m, nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.stride != (1, 1)
        and m.in_channels < 16
        for m in network.modules()
    )
    if choice == "channels_last" and unsafe:
        raise ConfigError(
            "memory_format=channels_last can crash on a CPU with this backbone: it has strided 1 x 1 convolutions of "
            "fewer than 16 channels. Use memory_format=auto, or a wider backbone."
        )
    untried = choice == "auto" and device.type == "mps"
    contiguous = choice == "contiguous" or unsafe or untried
    return torch.contiguous_format if contiguous else torch.channels_last


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn an allocator's failure into one sentence with ``advice`` on what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if (
            not out_of_memory
            and "can't allocate memory" not in text
            and "MPS backend out of memory" not in text
            and "not enough memory" not in text
        ):
            raise
        raise ConfigError(
            f"out of memory: {text.splitlines()[0] if text else 'allocation failed'}. {advice}"
        ) from error
