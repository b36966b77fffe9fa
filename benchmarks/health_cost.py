"""What a check of health costs, as a share of the training between two checks (docs/health.md).

    python benchmarks/health_cost.py --out benchmarks/results/DATE-MACHINE-health-cost.json

SDCLR as the CIFAR recipes train it (ResNet-18, 12,406 images of 32 px, batches of 512), on random pixels, which cost
the same. Measured are the median step and the whole check, the host's part of it included, one after the other in one
process; the share follows from the steps of an epoch and from how seldom a run checks by itself. On a CPU `--width 16`
is minutes on two cores, the recipe's 64 about ten.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sdclr import recipe
from sdclr.compute.device import describe_device
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.health import every_epochs
from sdclr.jobs.pretrain.health_measures import WeightWatch, measure_network
from sdclr.jobs.pretrain.health_sample import health_sample
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.presentation.progress import NoProgress


def timed(training: Training, action: Callable[[], None]) -> float:
    """Seconds, the device's work included."""
    begun = time.perf_counter()
    action()
    if training.device.type == "cuda":
        torch.cuda.synchronize(training.device)
    return time.perf_counter() - begun


def _training(num_images: int, width: int) -> Training:
    """Of SDCLR on images of chance."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        pixels = random.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
        np.savez(path, train_images=pixels, train_labels=np.arange(num_images) % 10)
        config = recipe("cifar10_lt_sdclr").with_values(
            {
                "data": {"name": "arrays", "path": str(path), "subset": "all"},
                "backbone.width": width,
            }
        )
        return build(config, show=NoProgress())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--images", type=int, default=12406)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    training = _training(options.images, options.width)
    state = TrainingState.begin(training.device)
    training.method.train()
    training.method.on_epoch_start(0)
    sample = health_sample(training)
    assert sample is not None
    watch = WeightWatch(training.method)
    views = iter(training.views(0))

    def take_step() -> None:
        train_step(training, state, next(views))

    def check_health() -> None:
        watch.look()
        measure_network(training, sample)

    steps = [timed(training, take_step) for _ in range(options.steps + 1)]
    checks = [timed(training, check_health) for _ in range(3)]
    step, check = statistics.median(steps[1:]), statistics.median(checks)
    every = every_epochs(options.images, len(sample.views.a))
    facts = {
        "command": f"python benchmarks/health_cost.py --width {options.width} --images {options.images} "
        f"--steps {options.steps}",
        "device": describe_device(training.device),
        "torch": torch.__version__,
        "step_seconds": step,
        "check_seconds": check,
        "steps_per_epoch": training.steps_per_epoch,
        "every_epochs": every,
        "share": check / (every * training.steps_per_epoch * step),
        "n_steps": options.steps,
        "n_checks": len(checks),
        "all_steps": steps[1:],
        "all_checks": checks,
    }
    print(json.dumps(facts, indent=1))
    options.out.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
