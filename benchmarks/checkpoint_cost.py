"""What checkpoints cost: seconds of one durable save against the seconds of the steps between two.

    python benchmarks/checkpoint_cost.py [--width 64] [--batch 512] [--images 12406] [--repeats 5] [--json FILE]

The run is the paper's on CIFAR-10-LT (SDCLR, ResNet-18, 32 px), on random pixels; a save is the run's own, fsyncs
included, into the folder of temporary files. "share" is the time of the saves of one default interval (10 epochs, or 10
minutes if these are over sooner) / the time of that interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sdclr import Run, recipe
from sdclr.device import describe_device
from sdclr.jobs.pretrain.job import Job
from sdclr.presentation.progress import NoProgress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--images", type=int, default=12_406, help="of the long-tailed split")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pixels = np.random.default_rng(0).integers(0, 256, (arguments.batch * 2, 32, 32, 3), dtype=np.uint8)
        np.savez(Path(name) / "pixels.npz", images=pixels)
        data = {"name": "arrays", "path": f"{name}/pixels.npz", "subset": "all"}
        values = {"data": data, "batch_size": arguments.batch, "backbone.width": arguments.width}
        config = recipe("cifar10_lt_sdclr").with_values(values)
        job, run = Job(config, show=NoProgress()), Run(Path(name) / "run")
        job.method.train()
        job.method.on_epoch_start(0)
        steps, saves = [], []
        with run:
            for repeat in range(arguments.repeats + 1):
                begun = time.perf_counter()
                job.train_step(next(job.views(repeat)))
                job.require_finite()
                job.step = repeat + 1
                stepped = time.perf_counter()
                job._save(run)
                if repeat:  # the first round warms up
                    steps.append(stepped - begun)
                    saves.append(time.perf_counter() - stepped)
        size = max(path.stat().st_size for path in run.checkpoints.folder.iterdir())
    step, save = statistics.median(steps), statistics.median(saves)
    epoch = step * -(-arguments.images // arguments.batch)
    interval = min(config.checkpoint_every_epochs * epoch, 60 * config.checkpoint_every_minutes)
    facts = {
        "hardware": describe_device(job.device),
        "torch": torch.__version__,
        "setting": {key: value for key, value in vars(arguments).items() if key != "json"},
        "checkpoint_megabytes": round(size / 1e6, 1),
        "median_seconds": {"step": step, "save": save, "epoch": epoch, "interval": interval},
        "spread": {"step": [min(steps), max(steps)], "save": [min(saves), max(saves)]},
        "share": save / interval,
    }
    print(json.dumps(facts, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
