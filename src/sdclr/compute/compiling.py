"""When a function is compiled, and what runs where torch.compile fails. The callers choose the function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from sdclr.compute.device_choices import Compile
from sdclr.errors import ConfigError

CompiledAs = bool | Literal["cuda-graphs"]
"""False: as it is; True: one graph of torch.compile; cuda-graphs: that, each pass's kernels replayed in one launch."""

COMPILED_SHAPES = 64
"""Shapes and settings of one method that a process compiles; torch's limit of 8 is too low for a series of runs."""
COMPILED_STEPS = 10_000
"""Steps from which compiling pays on a CUDA device: it takes 15 to 30 seconds for each of two batch sizes, and saves 4
of the 18 ms of a SimCLR step (docs/measurements.md)."""
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

    ``auto`` compiles long runs on one CUDA device; a CPU gains a few percent per step for minutes of compiling. It uses
    CUDA graphs where ``graphs_hold``: where tests on a device have shown that they compute the same. Requesting CUDA
    graphs without CUDA, or on ``several`` processes (which exchange tensors inside a step), raises ConfigError.
    """
    if choice == "auto":
        # not tested on several devices
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
    """Whether the making of views should be compiled on a CUDA device; on a CPU it never is."""
    return bool(choice) and (choice != "auto" or num_steps * side**2 >= COMPILED_PIXELS)


def compiled(
    function: Callable[..., Any], name: str, *, cuda_graphs: bool = False, required: bool = False
) -> Compiled:
    """``function`` as one graph of torch.compile; where that fails, the function itself, after one warning.

    The backward pass is compiled in the first call, together with the forward pass: failures to compile occur before
    anything is computed or any statistics are updated. (A torch without that switch compiles it in the first
    ``backward()``, and a failure there ends the run.) Shapes are static: every new one is compiled once more, up to
    COMPILED_SHAPES in a process.

    ``cuda_graphs``: torch.compile's ``reduce-overhead``, for a function that returns one tensor, one backward per call,
    gradients set to None before the next call. ``required``: a failure is a ConfigError (one of several processes must
    not run something else alone). Where torch declines to capture any part, the function is compiled without graphs; a
    failure while a graph is being recorded, in the second call of a shape, ends the run.
    """
    from torch._dynamo import config as dynamo_settings  # here: the compiler is slow to import
    from torch._dynamo import exc as dynamo
    from torch._functorch import config as autograd_settings
    from torch._inductor.exc import InductorError

    # shapes; not in every torch
    too_many = getattr(dynamo, "FailOnRecompileLimitHit", dynamo.TorchDynamoException)
    # full fp32 is intended; the other is torch 2.14's warning about its own code
    for message in ("TensorFloat32 tensor cores", "`torch._prims_common.check` is deprecated"):
        warnings.filterwarnings("ignore", message=message)
    ways: dict[CompiledAs, Callable[..., Any]] = {}
    # whole or not at all, so that it is clear what ran: by default torch captures what it can
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
        """``failures``: errors of compiling, always before it computes. ``settings``: the compiler's, for a call."""
        self._ways, self._name, self._failures, self._settings = ways, name, failures, settings
        self._required = required

    @property
    def how(self) -> CompiledAs:
        """How it runs, as far as is known: a later call may still fail to compile."""
        return next(iter(self._ways))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reason = None
        for how in [way for way in self._ways if way]:
            try:
                result = self._call_compiled(how, *args, **kwargs)
            except self._failures as error:
                reason = _first_line(error)
                if self._required:
                    raise ConfigError(
                        f"{self._name} does not compile: {reason}. Use compile=false."
                    ) from None
                del self._ways[how]
            else:
                self._warn_of(reason)
                return result
        result = self._ways[False](*args, **kwargs)
        self._warn_of(reason)
        return result

    def _warn_of(self, reason: str | None) -> None:
        """After a call has succeeded, warn how it runs now if a better way has failed for ``reason``."""
        if reason is None:
            return
        words = "compiled, but without CUDA graphs" if self.how else "uncompiled"
        message = f"{self._name} runs {words}, because torch.compile failed: {reason}"
        warnings.warn(message, stacklevel=3)

    def _call_compiled(self, how: CompiledAs, /, *args: Any, **kwargs: Any) -> Any:
        graphs = how == "cuda-graphs"
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # the last call's results and gradients may be overwritten
        limit, backward_too = self._settings
        with limit, backward_too:
            result = self._ways[how](*args, **kwargs)
        # a copy outside the memory that the next call overwrites
        return result.clone() if graphs else result


def _first_line(error: BaseException) -> str:
    # the cause of a backend's failure, whose own first line is a heading
    cause = getattr(error, "inner_exception", error)
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
