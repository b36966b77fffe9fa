"""What pre-training from photographs holds in memory, epoch by epoch: out of a decoded store and out of files.

    python benchmarks/memory.py [--gigabytes 1.0] [--epochs 10] [--json FILE] [--plot FILE.png]

Each of the two ways is a process of its own: the job of `sdclr pretrain` on generated JPEGs of 400 x 533, views of 32
px, a ResNet-10 of width 8, so that the images and not the network decide. Resident memory (what the process itself
holds, and pages of the mapped store) is read twenty times an epoch. "Above the model" is against the moment before the
first image was looked at, when torch, the network and its optimiser are loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from sdclr import recipe
from sdclr.compute.device import describe_device
from sdclr.jobs.pretrain.build import build
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.presentation.progress import NoProgress

HEIGHT, WIDTH = 400, 533
READINGS_PER_EPOCH = 20
LIMIT_GIGABYTES = 1.5


def write_photographs(folder: Path, number: int) -> None:
    """JPEGs, each another part of one photograph; copies of a few hundred, under names of their own."""
    photograph, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    for row in range(number):
        file = folder / f"{row:06d}.jpg"
        if row >= 200:
            file.hardlink_to(folder / f"{row % 200:06d}.jpg")
            continue
        top, left = (
            rng.integers(0, photograph.shape[0] - HEIGHT + 1),
            rng.integers(0, photograph.shape[1] - WIDTH + 1),
        )
        patch = photograph[top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(np.ascontiguousarray(patch)).save(file, "JPEG", quality=90)


def resident() -> tuple[float, float]:
    """Resident memory of this process, gigabytes: its own, and mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {
        line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith("Rss")
    }
    return values["RssAnon"] / 1e9, (values["RssFile"] + values["RssShmem"]) / 1e9


def train(folder: Path, store: str | None, epochs: int) -> dict[str, Any]:
    """Pre-train in this process; every reading, and the one before the images."""
    data = {"name": "images", "path": str(folder), "subset": "all", "store": store}
    network = {"backbone.name": "resnet10", "backbone.width": 8, "views.size": 32}
    config = recipe("digits_sdclr").with_values(
        {"data": data, "batch_size": 64, "epochs": epochs} | network
    )
    # torch and a network
    warm = build(recipe("digits_sdclr").with_values({"backbone.width": 8}), show=NoProgress())
    before = sum(resident())
    del warm
    training = build(config, show=NoProgress())
    state = TrainingState.begin(training.device)
    every, readings = max(1, training.steps_per_epoch // READINGS_PER_EPOCH), []
    training.method.train()
    for epoch in range(epochs):
        training.method.on_epoch_start(epoch)
        for views in training.views(epoch):
            train_step(training, state, views)
            if state.step % every == 0:
                readings.append(resident())
    threads = torch.get_num_threads()
    return {
        "before": before,
        "readings": readings,
        "images": len(training.images),
        "threads": threads,
    }


def measure(folder: Path, gigabytes: float, epochs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both ways, each in a process of its own."""
    photographs = folder / "photographs"
    photographs.mkdir()
    write_photographs(photographs, round(gigabytes * 1e9 / (HEIGHT * WIDTH * 3)))
    for name, store in (("store", str(folder / "store")), ("files", None)):
        command = [sys.executable, __file__, "--child", str(photographs), "--epochs", str(epochs)]
        command += [] if store is None else ["--store", store]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        yield name, json.loads(found.splitlines()[-1])


def summary(found: dict[str, Any], epochs: int) -> dict[str, float]:
    """Gigabytes: the most above the model, and the growth from the second epoch to the last."""
    whole = np.array(found["readings"]).sum(axis=1)
    by_epoch = [part.max() for part in np.array_split(whole, epochs)]
    return {
        "most_above_model": float(whole.max() - found["before"]),
        "growth_from_second_to_last_epoch": float(by_epoch[-1] - by_epoch[min(1, epochs - 1)]),
    }


def plot(results: dict[str, dict[str, Any]], epochs: int, file: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for axis, (name, found) in zip(axes, results.items(), strict=True):
        own, mapped = np.array(found["readings"]).T
        epoch = np.arange(1, len(own) + 1) / len(own) * epochs
        axis.stackplot(
            epoch,
            own,
            mapped,
            labels=["its own", "mapped from files"],
            colors=["#4c72b0", "#c5d3ea"],
        )
        axis.axhline(found["before"], color="black", linewidth=0.8, linestyle="--")
        axis.annotate(
            "before any image",
            (0.02, found["before"]),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
        )
        axis.set(
            title={"store": "out of a decoded store", "files": "out of files"}[name],
            xlabel="epoch",
            xlim=(0, epochs),
        )
    axes[0].set(ylabel="resident memory (GB)")
    axes[1].legend(loc="lower right", fontsize=8)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of all images, decoded")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(train(arguments.child, arguments.store, arguments.epochs)))
        return
    with tempfile.TemporaryDirectory() as name:
        results = dict(measure(Path(name), arguments.gigabytes, arguments.epochs))
    facts: dict[str, Any] = {
        "hardware": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "setting": {
            "gigabytes": arguments.gigabytes,
            "epochs": arguments.epochs,
            "images": results["store"]["images"],
        },
        "gigabytes": {name: summary(found, arguments.epochs) for name, found in results.items()},
    }
    print(json.dumps(facts, indent=1))
    print(f"limit: {LIMIT_GIGABYTES} GB above the model out of a store of {arguments.gigabytes} GB")
    if arguments.json:
        arguments.json.write_text(json.dumps(facts | {"readings": results}, indent=1) + "\n")
    if arguments.plot:
        plot(results, arguments.epochs, arguments.plot)


if __name__ == "__main__":
    main()
