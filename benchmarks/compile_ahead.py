"""Compile what the benches time on a CUDA device, all at once, so that they find it in torch's cache.

    python benchmarks/compile_ahead.py [--small]

Each step is compiled in a process of its own: SimCLR's and SDCLR's, of the default work and of `make bench-large`. The
code stays in TORCHINDUCTOR_CACHE_DIR. SDCLR's step with a ResNet-18 took 29 seconds to compile (docs/measurements.md),
and its first step 4 with the code in the cache (2026-11-27-nvidia-h100-branches.json). ``--small`` rehearses on a
CPU, where nothing is compiled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from bench.bounds import LARGE, SMALL, Work
from bench.rounds import wait_for
from device_facts import Size, ready_step, workload_of

from sdclr.compute.compiling import CompiledAs

WORKS = {"small": SMALL["cuda"], "large": LARGE}
TINY = Work("resnet10", 4, 16, 8)
STEPS = 3
"""Compiled, recorded, replayed."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --small rehearses on a CPU.")
    if arguments.one:
        _compile(*arguments.one, small=arguments.small)
        return
    given = [sys.executable, __file__, *(["--small"] if arguments.small else []), "--one"]
    # those that take longest begin first
    todo = [(method, work) for work in ("large", "small") for method in ("sdclr", "simclr")]
    processes = [subprocess.Popen([*given, *one]) for one in todo]
    sys.exit(max(abs(process.wait()) for process in processes))


def _compile(method: str, name: str, *, small: bool) -> None:
    begun = time.perf_counter()
    device = torch.device("cpu" if small else "cuda")
    backbone, width, side, batch = TINY if small else WORKS[name]
    how: CompiledAs = False if small else True if name == "large" else "cuda-graphs"
    work = workload_of(backbone, width, side, batch, Size(device))
    step = ready_step(work, method, "bf16", how)
    for _ in range(STEPS):
        step()
    wait_for(device)
    print(f"{method}, {name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
