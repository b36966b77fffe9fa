"""How the cost grows with the batch, the image size, the backbone and the number of images; and the loss's memory.

    python benchmarks/scaling.py [--only batch ...] [--rounds 3] [--json FILE] [--plots FOLDER]
    python benchmarks/scaling.py --draw FILE --plots docs/scaling

One process; the points of a subject take turns; medians and ranges over rounds. Steps are SDCLR's on ready-made views,
fp32. The series over batches and image sizes use a small network (ResNet-10, width 16), so that a CPU gets through.
--draw makes the plots of an earlier file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench.contestants import PROJECTION_DIM, Workload
from bench.machine import flops_of, peak_memory
from bench.rounds import Action, measure, summary, timed
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdclr import Views
from sdclr.backbones import BackboneConfig
from sdclr.compute.device import describe_device, resolve_device
from sdclr.data import epoch_batches
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.methods import nt_xent as loss

SMALL = BackboneConfig(name="resnet10", width=16)
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
SIZES = (16, 32, 64, 96, 128)
BACKBONES = (
    ("resnet10", 16),
    ("resnet10", 32),
    ("resnet18", 32),
    ("resnet18", 64),
    ("resnet34", 64),
    ("resnet50", 64),
)
NUM_IMAGES = (1_000, 10_000, 100_000, 1_000_000)
LOSS_BATCHES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
PLAIN_UP_TO = 4096
"""Images up to which the untiled loss is run: beyond, its matrices take more than 4 GB."""

Work = Callable[[], object]


def step(
    backbone: BackboneConfig, size: int, batch: int, device: torch.device, folder: Path
) -> tuple[Work, int]:
    """A step of SDCLR, and its FLOPs."""
    workload = Workload(backbone, size, 2, device, folder / "images.npz")
    if not workload.file.exists():
        workload.write(workload.pixels())
    training = workload.training("sdclr", "fp32", compiled=False)
    layout = training.memory_format
    a, b = (
        v.contiguous(memory_format=layout)
        for v in torch.rand(2, batch, 3, size, size, device=device)
    )
    views = Views(a, b, torch.arange(batch, device=device))
    tiny = Views(a[:2], b[:2], views.index[:2])
    flops = flops_of(lambda: training.method(tiny).mean().backward()) * batch // 2
    return partial(train_step, training, TrainingState.begin(device), views), flops


def over_batches(
    device: torch.device, folder: Path
) -> tuple[dict[str, list[Work]], dict[str, Any]]:
    return {"step": [step(SMALL, 32, batch, device, folder)[0] for batch in BATCHES]}, {
        "x": BATCHES
    }


def over_sizes(device: torch.device, folder: Path) -> tuple[dict[str, list[Work]], dict[str, Any]]:
    return {"step": [step(SMALL, size, 32, device, folder)[0] for size in SIZES]}, {"x": SIZES}


def over_backbones(
    device: torch.device, folder: Path
) -> tuple[dict[str, list[Work]], dict[str, Any]]:
    steps = [step(BackboneConfig(name=n, width=w), 32, 32, device, folder) for n, w in BACKBONES]
    labels = [f"{name}, width {width}" for name, width in BACKBONES]
    return {"step": [work for work, _ in steps]}, {
        "x": [flops / 1e9 for _, flops in steps],
        "labels": labels,
    }


def over_images(device: torch.device, folder: Path) -> tuple[dict[str, list[Work]], dict[str, Any]]:
    def epoch(num: int) -> int:
        return sum(len(batch) for batch in epoch_batches(num, 512, seed=0, epoch=0))

    def first_batch(num: int) -> object:
        return next(epoch_batches(num, 512, seed=0, epoch=0))

    works = {"a whole epoch's batches": epoch, "until the first batch": first_batch}
    return {name: [partial(work, num) for num in NUM_IMAGES] for name, work in works.items()}, {
        "x": NUM_IMAGES
    }


def over_losses(device: torch.device, folder: Path) -> tuple[dict[str, list[Work]], dict[str, Any]]:
    def work(tiled: bool, batch: int) -> None:
        before, loss.TILED_ABOVE = loss.TILED_ABOVE, 0 if tiled else batch
        a, b = (
            torch.randn(batch, PROJECTION_DIM, device=device).requires_grad_() for _ in range(2)
        )
        loss.nt_xent(a, b, 0.2).mean().backward()
        loss.TILED_ABOVE = before

    plain: list[Work] = [
        partial(work, False, batch) for batch in LOSS_BATCHES if batch <= PLAIN_UP_TO
    ]
    tiled: list[Work] = [partial(work, True, batch) for batch in LOSS_BATCHES]
    return {"plain": plain, "tiled": tiled}, {"x": LOSS_BATCHES}


COLOURS = ("#0072B2", "#D55E00")
SUBJECTS = {
    "batch": (over_batches, "images a batch (ResNet-10 width 16, 32 px)"),
    "size": (over_sizes, "side of a view in pixels (ResNet-10 width 16, batch 32)"),
    "backbone": (over_backbones, "GFLOP a step (batch 32, 32 px)"),
    "images": (over_images, "images of the data set"),
    "loss": (over_losses, "images a batch (loss and gradient, D = 128)"),
}


def series(subject: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds, and of the loss bytes, at every point."""
    with tempfile.TemporaryDirectory() as folder:
        works, facts = SUBJECTS[subject][0](device, Path(folder))
        points = [(name, i, work) for name, list_ in works.items() for i, work in enumerate(list_)]
        passes = rounds if subject == "loss" else 1  # they also warm up
        memory = {
            f"{name}/{i}": statistics.median(peak_memory(work, device) or 0 for _ in range(passes))
            for name, i, work in points
        }
        actions: dict[str, Action] = {
            f"{name}/{i}": timed(work, device) for name, i, work in points
        }
        times = measure(actions, rounds=rounds, seconds=math.inf)
    found = {
        name: [summary(times[f"{name}/{i}"]) for i in range(len(list_))]
        for name, list_ in works.items()
    }
    bytes_ = {
        name: [memory[f"{name}/{i}"] for i in range(len(list_))] for name, list_ in works.items()
    }
    return facts | {
        "seconds": found,
        "n": rounds,
        **({"peak_bytes": bytes_} if subject == "loss" else {}),
    }


def exponent(x: list[float], y: list[float]) -> float:
    """Of the power law from the last point but two to the last."""
    return math.log(y[-1] / y[-3]) / math.log(x[-1] / x[-3])


def draw(facts: dict[str, Any], folder: Path) -> None:
    """One PNG a subject: seconds, and of the loss also memory."""
    folder.mkdir(parents=True, exist_ok=True)
    for subject, found in facts["subjects"].items():
        panels = {"seconds": _medians(found["seconds"])}
        if "peak_bytes" in found:
            panels["peak memory, MB"] = _megabytes(found["peak_bytes"])
        figure = Figure(figsize=(5.4 * len(panels), 3.4), layout="constrained", dpi=100)
        for number, (label, lines) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number)
            _lines(axes, lines, found["x"])
            if label == "seconds":
                _ranges(axes, found)
            _ticks(axes, lines, found)
            axes.set_xlabel(SUBJECTS[subject][1])
            axes.set_ylabel(label)
        figure.savefig(folder / f"{subject}.png", metadata={"Software": None})


def _medians(seconds: dict[str, list[dict[str, float]]]) -> dict[str, list[float]]:
    return {name: [point["median"] for point in points] for name, points in seconds.items()}


def _megabytes(peaks: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [peak / 1e6 for peak in values] for name, values in peaks.items()}


def _lines(axes: Axes, lines: dict[str, list[float]], places: list[float]) -> None:
    for colour, (name, y) in zip(COLOURS, lines.items(), strict=False):
        x = list(places)[: len(y)]
        label = f"{name}: exponent {exponent(x, y):.1f} at the end"
        axes.plot(x, y, "o-", color=colour, label=label, markersize=4)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
    )


def _ranges(axes: Axes, found: dict[str, Any]) -> None:
    """From the fastest round to the slowest."""
    for colour, points in zip(COLOURS, found["seconds"].values(), strict=False):
        low, high = ([point[end] for point in points] for end in ("low", "high"))
        axes.vlines(found["x"][: len(points)], low, high, color=colour, linewidth=1.5, alpha=0.5)


def _ticks(axes: Axes, lines: dict[str, list[float]], found: dict[str, Any]) -> None:
    """Both axes logarithmic; points have names, or their places are written below."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    if not (names := found.get("labels")):
        axes.set_xticks(found["x"], [f"{tick:,.0f}" for tick in found["x"]], fontsize=8)
        axes.set_xticks([], minor=True)
        return
    for x, y, name in zip(found["x"], *lines.values(), names, strict=True):
        last = x == max(found["x"])
        offset, side = ((-6, 2), "right") if last else ((6, -9), "left")
        axes.annotate(name, (x, y), offset, textcoords="offset points", fontsize=7, ha=side)
    axes.margins(x=0.2)


def show(facts: dict[str, Any]) -> None:
    for subject, found in facts["subjects"].items():
        print(f"{subject}: {SUBJECTS[subject][1]}")
        for name, points in found["seconds"].items():
            memory, labels = found.get("peak_bytes", {}).get(name), found.get("labels")
            for i, (x, point) in enumerate(zip(found["x"], points, strict=False)):
                extra = f"{memory[i] / 1e6:.1f} MB" if memory else labels[i] if labels else ""
                spread = f"({point['low']:.4f} .. {point['high']:.4f})"
                print(
                    f"  {name:<24} {x:>12,.5g} {point['median']:10.4f} s {spread:<24} {extra}".rstrip()
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--draw", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.draw:
        facts = json.loads(arguments.draw.read_text())
    else:
        device = resolve_device(arguments.device)
        facts = {
            "kind": "scaling",
            "date": datetime.date.today().isoformat(),
            "hardware": describe_device(device),
            "torch": torch.__version__,
            "load_before": os.getloadavg()[0],
            "subjects": {name: series(name, device, arguments.rounds) for name in arguments.only},
        }
    show(facts)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    if arguments.plots:
        draw(facts, arguments.plots)


if __name__ == "__main__":
    main()
