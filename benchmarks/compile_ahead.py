"""Compile what the benches time on a CUDA device, all at once, so that they find it in torch's cache.

    python benchmarks/compile_ahead.py [--small]

Each step is compiled in a process of its own: SimCLR's and SDCLR's, of the default work and of `make bench-large`. The
code stays in TORCHINDUCTOR_CACHE_DIR. The first step of SDCLR with a ResNet-18 took 56 seconds on a busy host, and 4
with the code in the cache (2026-11-27-nvidia-h100-branches.json is of the latter). ``--small`` rehearses on a CPU,
where nothing is compiled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench.bounds import LARGE, SMALL, Work
from bench.contestants import Workload
from bench.rounds import wait_for

from sdclr.backbones import BackboneConfig
from sdclr.backbones.image_sizes import fitted_to
from sdclr.batch import Views
from sdclr.compute.compiling import CompiledAs
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import TrainingState

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
    backbone_name, width, side, batch = TINY if small else WORKS[name]
    config = BackboneConfig(
        name=backbone_name, width=width, stem="large" if side >= 128 else "small"
    )
    backbone = fitted_to(config, side)
    how: CompiledAs = False if small else True if name == "large" else "cuda-graphs"
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(backbone, side, batch, device, Path(folder) / "images.npz")
        work.write(torch.zeros(batch, 3, side, side, dtype=torch.uint8))
        training = work.training(method, "bf16", how)
    a, b = torch.rand(2, batch, 3, side, side, device=device)
    a, b = (view.contiguous(memory_format=training.memory_format) for view in (a, b))
    state = TrainingState.begin(device)
    for _ in range(STEPS):
        train_step(training, state, Views(a, b, torch.arange(batch, device=device)))
    wait_for(device)
    print(f"{method}, {name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
