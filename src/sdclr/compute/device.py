"""Which device computes, in which precision, and what to say when its memory runs out."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from sdclr.compute.device_choices import Compile, MemoryFormat, Precision
from sdclr.errors import ConfigError

Network = TypeVar("Network", bound=nn.Module)

CompiledAs = bool | Literal["cuda-graphs"]
"""False: as it is; True: one graph of torch.compile; cuda-graphs: that, each pass's kernels replayed in one launch."""

COMPILED_SHAPES = 64
"""Shapes and settings of one method that a process compiles; torch's limit of 8 is too low for a series of runs."""


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU. Raises ConfigError for anything that cannot run here.

    Apple's GPU has to be named (mps): nobody has run this package on one.
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
            f"device {name!r} was asked for, and torch sees no such GPU of Apple's here. Use cpu, or mps on a Mac with "
            "Apple silicon and macOS 14 or later."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices."
        )
    return device


def mps_is_available() -> bool:
    """Whether torch can compute on a GPU of Apple's here; before macOS 14 it lacks bf16 and more."""
    return torch.backends.mps.is_available() and torch.backends.mps.is_macos_or_newer(14, 0)


def has_float64(device: torch.device) -> bool:
    """Whether the device knows 64-bit floats; Apple's GPU does not."""
    return device.type != "mps"


def widest_float(device: torch.device) -> torch.dtype:
    """For sums over many numbers that stay on the device."""
    return torch.float64 if has_float64(device) else torch.float32


def in_float64(values: Tensor) -> Tensor:
    """The same in float64, on the CPU where their device has none."""
    return values.double() if has_float64(values.device) else values.cpu().double()


def device_of_draws(device: torch.device) -> torch.device:
    """Where what needs 64 bits is drawn for views on ``device``: there, or on the CPU where it has none."""
    return device if has_float64(device) else torch.device("cpu")


def placed_on(network: Network, device: torch.device) -> Network:
    """The network on ``device``, in the layout in which it computes features there."""
    network = network.to(device)
    # on Apple's GPU nobody has tried another layout than the usual one
    return network if device.type == "mps" else network.to(memory_format=torch.channels_last)


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """``auto`` is bf16 autocast on a CUDA device that has it, else fp32.

    Never bf16 on a CPU: a recipe has to give the same numbers on every machine. For own images, whose settings follow
    the machine, ``recipes.own_images`` chooses by ``bf16_speedup_of_cpu`` and puts the answer into the config.
    """
    if precision == "fp64" and not has_float64(device):
        raise ConfigError(f"precision=fp64 cannot run on {device}, which has no 64-bit floats.")
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def bf16_speedup_of_cpu() -> float:
    """How many times as fast as in fp32 this CPU does a convolution, forward and backward, in bf16.

    Measured in CPU time, which work beside it hardly moves: the least of seven turns, a tenth of a second in all. 0.0
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
    """A layer from the middle of a ResNet, 4 images of 128 channels and 16 px, as it is trained."""
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
    """bf16 autocast when ``precision`` says so; parameters and losses stay in fp32."""
    return (
        torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
    )


COMPILED_STEPS = 10_000
"""Steps from which compiling pays on a CUDA device: it takes 15 to 30 seconds for each of two sizes of a batch, and
saves 4 ms of 18 a step of SimCLR (docs/measurements.md)."""
COMPILED_PIXELS = COMPILED_STEPS * 32**2
"""Steps times pixels of a view from which the views are compiled too: 200 steps at 224 px; each saves 28 ms."""


def resolve_compile(
    choice: Compile,
    device: torch.device,
    *,
    several: bool = False,
    num_steps: int = COMPILED_STEPS,
    graphs_hold: bool = False,
) -> CompiledAs:
    """How to compile a method for ``num_steps`` steps.

    ``auto`` compiles long runs on one CUDA device; a CPU gains a few percent a step for minutes of compiling. It takes
    CUDA graphs where ``graphs_hold``: where tests on a device have shown that they compute the same. To ask for CUDA
    graphs without CUDA, or on ``several`` processes (which exchange tensors inside a step), is a ConfigError.
    """
    if choice == "auto":
        # on several devices nobody has seen it
        long = device.type == "cuda" and not several and num_steps >= COMPILED_STEPS
        return "cuda-graphs" if long and graphs_hold else long
    if choice and choice != "auto" and device.type == "mps":
        raise ConfigError(f"compile={choice} is not for {device}; use compile=auto.")
    if choice == "cuda-graphs" and several:
        raise ConfigError("compile=cuda-graphs is for one process; use compile=auto on several.")
    if choice == "cuda-graphs" and device.type != "cuda":
        raise ConfigError(
            f"compile=cuda-graphs needs a CUDA device, and this run is on {device}; use compile=auto."
        )
    return choice


def compiles_views(choice: Compile, num_steps: int, side: int) -> bool:
    """Whether a CUDA device should compile what makes views; on a CPU nothing of them is compiled."""
    return bool(choice) and (choice != "auto" or num_steps * side**2 >= COMPILED_PIXELS)


def compiled(
    function: Callable[..., Any], name: str, *, cuda_graphs: bool = False, required: bool = False
) -> Compiled:
    """``function`` as one graph of torch.compile; where that fails, the function itself, after one warning.

    The backward pass is compiled in the first call, together with the forward pass: whatever fails to compile does so
    before anything was computed or any statistics moved. (A torch without that switch compiles it in the first
    ``backward()``, and a failure there ends the run.) Shapes are static: every new one is compiled once more, up to
    COMPILED_SHAPES in a process.

    ``cuda_graphs``: torch.compile's ``reduce-overhead``, for a function that returns one tensor, one backward a call,
    gradients set to None before the next call. ``required``: a failure is a ConfigError (of several processes one alone
    must not run something else). Where torch declines to capture any part, it is compiled without; what
    fails while it is being recorded, in the second call of a shape, ends the run.
    """
    from torch._dynamo import config as dynamo_settings  # here: the compiler is slow to import
    from torch._dynamo import exc as dynamo
    from torch._functorch import config as autograd_settings
    from torch._inductor.exc import InductorError

    # shapes; not in every torch
    too_many = getattr(dynamo, "FailOnRecompileLimitHit", dynamo.TorchDynamoException)
    # full fp32 is meant; the other one is torch 2.14 warning of itself
    for message in ("TensorFloat32 tensor cores", "`torch._prims_common.check` is deprecated"):
        warnings.filterwarnings("ignore", message=message)
    ways: dict[CompiledAs, Callable[..., Any]] = {}
    # whole or not at all, so that nobody has to guess what ran: torch would capture what it can
    if cuda_graphs:
        options: dict[str, Any] = {
            "triton.cudagraphs": True,
            "triton.cudagraph_or_error": True,
            "graph_partition": False,
        }
        ways["cuda-graphs"] = torch.compile(
            function, fullgraph=True, dynamic=False, options=options
        )
    ways[True] = torch.compile(function, fullgraph=True, dynamic=False)
    ways[False] = function
    at_once = "force_non_lazy_backward_lowering"
    return Compiled(
        ways,
        name,
        failures=(dynamo.TorchDynamoException, InductorError, too_many),
        required=required,
        settings=(
            dynamo_settings.patch(recompile_limit=COMPILED_SHAPES),
            autograd_settings.patch({at_once: True})
            if hasattr(autograd_settings, at_once)
            else nullcontext(),
        ),
    )


class Compiled:
    """One function and the ways to run it, best first; a way that does not compile is dropped, with a warning."""

    def __init__(
        self,
        ways: dict[CompiledAs, Callable[..., Any]],
        name: str,
        *,
        failures: tuple[type[Exception], ...],
        required: bool,
        settings: tuple[AbstractContextManager[object], AbstractContextManager[object]],
    ) -> None:
        """``failures``: what compiling raises, always before it computes. ``settings``: the compiler's, for a call."""
        self._ways, self._name, self._failures, self._settings = ways, name, failures, settings
        self._required = required

    @property
    def how(self) -> CompiledAs:
        """How it runs, as far as is known: a later call may still fail to compile."""
        return next(iter(self._ways))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reason = None
        while self.how:
            try:
                result = self._call_compiled(*args, **kwargs)
                break
            except self._failures as error:
                reason = _first_line(error)
                if self._required:
                    raise ConfigError(
                        f"{self._name} does not compile: {reason}. Use compile=false."
                    ) from None
                del self._ways[self.how]
        else:
            result = self._ways[False](*args, **kwargs)
        if reason:
            words = "compiled, but without CUDA graphs" if self.how else "uncompiled"
            warnings.warn(
                f"{self._name} runs {words}, because torch.compile failed: {reason}", stacklevel=2
            )
        return result

    def _call_compiled(self, *args: Any, **kwargs: Any) -> Any:
        graphs = self.how == "cuda-graphs"
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # the last call's results and gradients may be overwritten
        limit, backward_too = self._settings
        with limit, backward_too:
            result = self._ways[self.how](*args, **kwargs)
        # out of the memory that the next call overwrites
        return result.clone() if graphs else result


def _first_line(error: BaseException) -> str:
    # of a backend's failure; its own first line is a heading
    cause = getattr(error, "inner_exception", error)
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def describe_device(device: torch.device) -> str:
    """For reports: ``CPU: <model>, 2 threads`` or the GPU's name."""
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


def free_memory(device: torch.device) -> int:
    """Bytes of memory that can be had: of the CUDA device, or of this machine (what its page cache would give back)."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_of_machine()


def free_memory_of_machine() -> int:
    """Bytes that this process can still get; a limit on its address space or its container counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(
            1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
        )
        return int(min(free, _free_in_container()))
    except (OSError, StopIteration):
        return _free_elsewhere()


def _free_elsewhere() -> int:
    """Free bytes where there is no /proc/meminfo; half of all where only those are known, else 2 GB."""
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            return int(share * os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))
    return 2 * 10**9


def peak_process_memory() -> int:
    """Bytes this process has taken at its peak; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _free_in_container() -> float:
    """Bytes that a container's limit (cgroup 2) leaves; infinite without one."""
    folder = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        return int((folder / "memory.max").read_text()) - int(
            (folder / "memory.current").read_text()
        )
    return math.inf


def resolve_memory_format(
    choice: MemoryFormat, network: nn.Module, device: torch.device
) -> torch.memory_format:
    """``auto`` is channels_last, but contiguous on Apple's GPU, and on a CPU where channels_last corrupts memory.

    Seen with torch 2.15 and oneDNN on AVX-512: the gradient of a strided 1 x 1 convolution with fewer than 16 input
    channels writes outside its buffers for odd batches on several threads. Raises ConfigError when it is asked for.
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
    """Turn an allocator's failure into one sentence that says what to lower."""
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


class LateAnswer:
    """A boolean of the device on its way to the host: asked for now, read a step later, while the device is busy."""

    def __init__(self, answer: Tensor) -> None:
        # elsewhere than on CUDA nothing says when a copy that nobody waits for has arrived
        self._value = answer.to("cpu", non_blocking=answer.is_cuda, copy=True)
        self._arrived = torch.cuda.Event() if answer.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(answer.device))

    def read(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)
