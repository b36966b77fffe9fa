"""What a checkpoint costs the step loop, when the loop writes it and when a thread does.

    python benchmarks/checkpoint_cost.py [--width 64] [--batch 512] [--images 12406] [--repeats 5] [--json FILE]
    python benchmarks/checkpoint_cost.py --device-step 0.02

The run is the paper's on CIFAR-10-LT (SDCLR, ResNet-18, 32 px), on random pixels; a save is the run's own, fsyncs
included, into the folder of temporary files. Rounds of --steps steps take turns: without a save, with one that the loop
writes, and with one that a thread writes while the loop goes on. "lost" is what such a round takes longer than the
one without, "blocked" the part of it inside of the save, "cpu" the CPU seconds of the loop's own thread there. "share"
is lost / the default interval (10 epochs, or 10 minutes if these are over sooner).

With --device-step, a round is a default interval on a device that is not there: the host is busy in Python for half of
a step and waits for the other half. That is what a loop beside a fast device can lose to the writing thread. The copy
out of a device's memory is not in it; the look for numbers that are not finite, which a device has soon done, is. torch
then has one thread, so that "cpu" counts all of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sdclr import Run, recipe
from sdclr.batch import Views
from sdclr.compute.device import describe_device
from sdclr.jobs.pretrain import checkpoint_writer
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.checkpoint_schedule import EPOCHS_BETWEEN_SAVES, CheckpointSchedule
from sdclr.jobs.pretrain.step import require_finite, train_step
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.presentation.progress import NoProgress
from sdclr.settings import PretrainConfig

WRITERS: dict[str, tuple[str, ...]] = {"nobody": (), "loop": (), "thread": ("cpu", "cuda")}
"""Who writes -> beside which devices a thread does."""


class Round(NamedTuple):
    """Seconds."""

    whole: float
    blocked: float
    cpu: float


def pretend_step(seconds: float) -> None:
    """A host that launches kernels, and then waits for them."""
    end = time.perf_counter() + seconds / 2
    while time.perf_counter() < end:
        pass
    time.sleep(seconds / 2)


def take_round(
    schedule: CheckpointSchedule,
    run: Run,
    step: Callable[[], object],
    steps: int,
    *,
    save: bool,
) -> Round:
    """``steps`` steps, with a save after the first."""
    begun, blocked, cpu = time.perf_counter(), 0.0, 0.0
    for number in range(steps):
        step()
        if save and number == 0:
            saving, saving_cpu = time.perf_counter(), time.thread_time()
            schedule.save(run)
            blocked, cpu = time.perf_counter() - saving, time.thread_time() - saving_cpu
    whole = time.perf_counter() - begun
    schedule.wait()
    return Round(whole, blocked, cpu)


def measure(
    training: Training,
    state: TrainingState,
    run: Run,
    step: Callable[[], object],
    steps: int,
    repeats: int,
) -> dict[str, list[Round]]:
    """Rounds by who writes; the first of each warms up and does not count."""
    rounds: dict[str, list[Round]] = {name: [] for name in WRITERS}
    schedules = {}
    for name, devices in WRITERS.items():
        checkpoint_writer.BESIDE_DEVICES = devices
        writer = checkpoint_writer.CheckpointWriter(training.device)
        schedules[name] = CheckpointSchedule(training, state, writer)
    for _ in range(repeats + 1):
        for name, schedule in schedules.items():
            rounds[name].append(take_round(schedule, run, step, steps, save=name != "nobody"))
            state.step += 1
    return {name: taken[1:] for name, taken in rounds.items()}


def summary(rounds: dict[str, list[Round]], step_seconds: float, interval: float) -> dict[str, Any]:
    """Seconds: median, smallest, largest."""
    found: dict[str, Any] = {"step_seconds": step_seconds, "interval_seconds": interval}
    for name, taken in rounds.items():
        lost = [
            one.whole - without.whole for one, without in zip(taken, rounds["nobody"], strict=True)
        ]
        columns = {"round": [one.whole for one in taken]}
        if name != "nobody":
            columns |= {
                "lost": lost,
                "blocked": [one.blocked for one in taken],
                "cpu": [one.cpu for one in taken],
            }
        found[name] = {
            key: [statistics.median(values), min(values), max(values)]
            for key, values in columns.items()
        }
    for name in ("loop", "thread"):
        found[name]["share"] = found[name]["lost"][0] / interval
    return found


def settings(arguments: argparse.Namespace, folder: Path) -> PretrainConfig:
    pixels = np.random.default_rng(0).integers(
        0, 256, (arguments.batch * 2, 32, 32, 3), dtype=np.uint8
    )
    np.savez(folder / "pixels.npz", images=pixels)
    data = {"name": "arrays", "path": f"{folder}/pixels.npz", "subset": "all"}
    values = {"data": data, "batch_size": arguments.batch, "backbone.width": arguments.width}
    return recipe("cifar10_lt_sdclr").with_values(values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--images", type=int, default=12_406, help="of the long-tailed split")
    parser.add_argument(
        "--steps", type=int, default=2, help="of a round; with --device-step a default interval's"
    )
    parser.add_argument(
        "--device-step", type=float, help="seconds of a step on a device that is not there"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if arguments.device_step is not None:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        config = settings(arguments, Path(name))
        training, run = build(config, show=NoProgress()), Run(Path(name) / "run")
        state = TrainingState.begin(training.device)
        training.method.train()
        training.method.on_epoch_start(0)
        views = next(training.views(0))
        if arguments.device_step is not None:
            # one step, so that the optimiser has its state
            views = Views(views.a[:16], views.b[:16], views.index[:16])

        def real_step() -> None:
            train_step(training, state, views)
            require_finite(training, state)

        real_step()
        epoch_steps = -(-arguments.images // arguments.batch)
        steps, step = arguments.steps, real_step
        if arguments.device_step is not None:
            steps = EPOCHS_BETWEEN_SAVES * epoch_steps
            step = lambda: pretend_step(arguments.device_step)  # noqa: E731
        with run:
            rounds = measure(training, state, run, step, steps, arguments.repeats)
        size = max(path.stat().st_size for path in run.checkpoints.folder.iterdir())
    step_seconds = statistics.median(one.whole for one in rounds["nobody"]) / steps
    interval = min(
        EPOCHS_BETWEEN_SAVES * epoch_steps * step_seconds, 60 * config.checkpoint_every_minutes
    )
    facts = {
        "hardware": describe_device(training.device),
        "torch": torch.__version__,
        "setting": {key: value for key, value in vars(arguments).items() if key != "json"},
        "checkpoint_megabytes": round(size / 1e6, 1),
        **summary(rounds, step_seconds, interval),
    }
    print(json.dumps(facts, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
