"""How the cost of what surrounds training grows: reading, starting, splitting, judging, and several processes.

    python benchmarks/growth.py [--only file ...] [--rounds 3] [--most N] [--json FILE] [--plots FOLDER]
    python benchmarks/growth.py --only mining --rounds 1 --json FILE --plots docs/scaling
    python benchmarks/growth.py --draw FILE --plots docs/scaling

file       a .npz of N images of 32 px, read and fingerprinted: CPU seconds, and the growth of memory at its peak
folder     a folder of N photographs (64 px), until the first step is taken: the first start and the second
classes    10^6 labels of C classes: a long-tailed split drawn, and accuracies summed up
splits     N labels of 100 classes: the same
mining     N rows of 512 features, given: the ranking, tables and page of `sdclr mine`, in a process of its own
processes  a step of SDCLR (ResNet-10 of width 16, 32 px, 256 images) shared by P processes of one thread each

CPU seconds are those of one process; seconds on a clock are given beside them, or alone, where several threads or
processes work. Points of a subject take turns; medians and ranges.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench.machine import peak_memory
from bench.rounds import cpu_seconds, summary
from matplotlib.figure import Figure
from PIL import Image

from sdclr.compute.device import describe_device
from sdclr.data import DataConfig, build_data, draw_long_tail
from sdclr.evaluation.balancedness import balancedness

CPU = torch.device("cpu")
Point = dict[str, float]
"""What is measured at one point, by name."""


class Subject(NamedTuple):
    """What is measured over which sizes."""

    xlabel: str
    sizes: tuple[int, ...]
    measure: Callable[[int, Path], Point]


def main() -> None:
    arguments = _arguments()
    if arguments.start:
        print(json.dumps(_start(*arguments.start)))
        return
    if arguments.step is not None:
        _steps_of_a_process(Path(arguments.step))
        return
    if arguments.mine is not None:
        print(json.dumps(_mine(arguments.mine)))
        return
    if arguments.draw:
        facts = json.loads(arguments.draw.read_text())
    else:
        facts = {
            "kind": "growth",
            "date": datetime.date.today().isoformat(),
            "hardware": describe_device(CPU),
            "torch": torch.__version__,
            "load_before": os.getloadavg()[0],
            "n": arguments.rounds,
            "subjects": {
                name: _series(SUBJECTS[name], arguments.rounds, arguments.most)
                for name in arguments.only
            },
        }
    show(facts)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    if arguments.plots:
        draw(facts, arguments.plots)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=10**9, help="Leave larger sizes out.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--draw", type=Path, metavar="FILE")
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--mine", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def _series(subject: Subject, rounds: int, most: int) -> dict[str, Any]:
    sizes = [size for size in subject.sizes if size <= most] or [subject.sizes[0]]
    found: dict[int, list[Point]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(rounds):
            for size in sizes:
                found[size].append(subject.measure(size, Path(folder)))
                print(
                    f"round {round_ + 1} of {rounds}, {size:,}: {found[size][-1]}", file=sys.stderr
                )
    names = list(found[sizes[0]][0])
    return {
        "x": sizes,
        "points": {
            name: [summary([point[name] for point in found[size]]) for size in sizes]
            for name in names
        },
    }


# file


def measure_file(num: int, folder: Path) -> Point:
    file = folder / f"{num}.npz"
    if not file.exists():
        images = np.random.default_rng(0).integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)
        np.savez(file, images=images, labels=np.arange(num) % 10)
        del images
    config = DataConfig(name="arrays", path=str(file), subset="all")
    seconds: list[float] = []

    def read() -> None:
        seconds.append(cpu_seconds(lambda: build_data(config).fingerprint))

    peak = peak_memory(read, CPU)
    return {
        "CPU seconds": seconds[0],
        "peak memory, GB": math.nan if peak is None else peak / 1e9,
        "file, GB": file.stat().st_size / 1e9,
    }


# folder


def measure_folder(num: int, folder: Path) -> Point:
    photographs = folder / f"photographs-{num}"
    if not photographs.exists():
        _write_photographs(photographs, num)
    run = folder / f"run-{num}-{time.monotonic_ns()}"
    words = [sys.executable, __file__, "--start", str(photographs), str(run)]
    first, second = (
        json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        for _ in range(2)
    )
    return {
        "first start, seconds": first["seconds"],
        "second start, seconds": second["seconds"],
        "first start, CPU seconds": first["cpu_seconds"],
        "second start, CPU seconds": second["cpu_seconds"],
        **{f"of the first: {name}": value for name, value in first["parts"].items()},
    }


def _write_photographs(folder: Path, num: int) -> None:
    """Distinct files; the pixels of fifty pictures take turns, with another remark behind each."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(50):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        content = io.BytesIO()
        small.resize((64, 64), Image.Resampling.BICUBIC).save(content, "JPEG", quality=85)
        pictures.append(content.getvalue())
    for number in range(num):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number % 50] + str(number).encode())


class _Stepped(BaseException):
    """The first step was taken; no Exception, so that nothing takes it for a failure."""


def _start(photographs: str, run: str) -> dict[str, Any]:
    """Train until the first step is done, and say what took how long."""
    import warnings

    from sdclr import PretrainConfig, pretrain
    from sdclr.jobs.pretrain import build, folder, step

    warnings.simplefilter("ignore")  # of copies: the pictures take turns
    torch.set_num_threads(1)
    parts: dict[str, float] = {}

    def timed(module: Any, name: str, label: str) -> None:
        function = getattr(module, name)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                parts[label] = parts.get(label, 0.0) + time.perf_counter() - begun

        setattr(module, name, replaced)

    timed(build, "_data", "listing")
    timed(build, "usable_images", "decoding each once, copies")
    timed(build, "_placed", "headers")
    timed(folder, "_record_images", "record of the contents")

    def stop(*_: Any) -> None:
        raise _Stepped

    values: Mapping[str, Any] = {
        "data": {"name": "images", "subset": "all", "path": photographs},
        "views": {"size": 32},
        "backbone": {"name": "resnet10", "width": 4},
        "method": {"name": "simclr"},
        "epochs": 1,
        "batch_size": 16,
    }
    config = PretrainConfig.parse(dict(values))
    begun, cpu = time.perf_counter(), time.process_time()
    step.train_step = stop  # type: ignore[assignment]
    with contextlib.suppress(_Stepped):
        pretrain(config, run)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "parts": parts}


# classes and splits


def measure_labels(num_images: int, num_classes: int) -> Point:
    labels = np.arange(num_images) % num_classes
    ratio = min(100.0, num_images / num_classes)
    accuracy = np.random.default_rng(0).random(num_classes).tolist()
    counts = np.bincount(labels, minlength=num_classes)[::-1].tolist()
    return {
        "a split, CPU seconds": cpu_seconds(lambda: draw_long_tail(labels, imbalance_ratio=ratio)),
        "balancedness, CPU seconds": cpu_seconds(lambda: balancedness(accuracy, counts, "thirds")),
    }


# processes


def measure_processes(num: int, folder: Path) -> Point:
    out = folder / f"steps-{num}-{time.monotonic_ns()}.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num}"]
    words = [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*words, __file__, "--step", str(out)], check=True, env=environment, capture_output=True
    )
    return dict(json.loads(out.read_text()))


def _steps_of_a_process(out: Path) -> None:
    """One of several processes: a run of 8 steps after 2 to get warm; the first writes what they took."""
    from sdclr import Observer, PretrainConfig, pretrain
    from sdclr.processes.environment import is_first

    pixels = np.random.default_rng(0).integers(0, 256, (2560, 32, 32, 3), dtype=np.uint8)
    first = is_first()
    place = out.with_suffix(".npz")
    if first:
        np.savez(place.with_suffix(".partial.npz"), images=pixels)
        place.with_suffix(".partial.npz").rename(place)
    while not place.exists():
        time.sleep(0.01)
    ends: list[float] = []

    class Clock(Observer):
        def on_step(self, *_: Any) -> None:
            ends.append(time.perf_counter())

    config = PretrainConfig.parse(
        {
            "data": {"name": "arrays", "subset": "all", "path": str(place)},
            "views": {"size": 32},
            "backbone": {"name": "resnet10", "width": 16},
            "method": {"name": "sdclr"},
            "epochs": 1,
            "batch_size": 256,
            "precision": "fp32",
        }
    )
    pretrain(config, out.with_suffix(""), observers=[Clock()] if first else [])
    if first:
        steps = np.diff(ends)[1:]
        out.write_text(json.dumps({"seconds a step": float(np.median(steps))}))


# mining


def measure_mining(num: int, _: Path) -> Point:
    words = [sys.executable, __file__, "--mine", str(num)]
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(found))


def _mine(num: int) -> Point:
    """Rank made-up features, and write the tables and the page, which has no pictures here."""
    import resource

    from rich.console import Console

    from sdclr.jobs.mine.ranking import RankingOptions, ranked
    from sdclr.jobs.mine.tables import write_csv, write_parquet
    from sdclr.presentation.mining.page import render_mined_html
    from sdclr.presentation.progress import Progress

    features, looks, copies = _made_up_features(num)
    names = [f"session_{row // 1000:04d}/IMG_{row:07d}.jpg" for row in range(num)]
    times, cpu = [time.perf_counter()], time.process_time()
    with Progress(Console(stderr=True)) as progress, tempfile.TemporaryDirectory() as folder:
        ranking = ranked(features, looks, names, RankingOptions(), progress)
        times.append(time.perf_counter())
        cpu = time.process_time() - cpu
        write_csv(ranking.mined, Path(folder) / "scores.csv")
        write_parquet(ranking.mined, Path(folder) / "scores.parquet")
        times.append(time.perf_counter())
        (Path(folder) / "index.html").write_text(
            render_mined_html(ranking.mined, {}, top=200), encoding="utf-8"
        )
        times.append(time.perf_counter())
        page_bytes = (Path(folder) / "index.html").stat().st_size
    duplicate_of = ranking.mined.duplicate_of
    point = {
        "ranking, seconds": times[1] - times[0],
        "ranking, CPU seconds": cpu,
        "tables, seconds": times[2] - times[1],
        "page, seconds": times[3] - times[2],
        "peak memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "of the features, GB": features.numel() * 4 / 1e9,
        "of the page, GB": page_bytes / 1e9,
        "of planted copies folded": float((duplicate_of[copies] == copies - 1).mean()),
    }
    for name in ("unit", "directions"):
        one = ranking.approximations.get(name)
        point |= {
            f"of neighbours found, {name}": 1.0 if one is None else one.recall,
            f"of the nearest found, {name}": 1.0 if one is None else one.recall_of_nearest,
            f"of cells searched, {name}": 1.0
            if one is None
            else one.searched_cells / one.num_cells,
        }
    return point


def _made_up_features(num: int) -> tuple[torch.Tensor, Any, Any]:
    """1,000 kinds, the k-th 1 / k as often, varying in 64 directions, the k-th 1 / k as far; and copies, 1 %."""
    from sdclr.jobs.mine.looking import LOOK

    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, 1001)
    centres = rng.standard_normal((1000, 512), dtype=np.float32)
    directions = rng.standard_normal((64, 512), dtype=np.float32)
    directions *= np.float32(0.5) / np.arange(1, 65, dtype=np.float32)[:, None]
    features = torch.empty(num, 512)
    for start in range(0, num, 50_000):
        rows = features[start : start + 50_000].numpy()
        kinds = rng.choice(1000, len(rows), p=often / often.sum())
        inside = rng.standard_normal((len(rows), 64), dtype=np.float32)
        rows[:] = centres[kinds] + inside @ directions
        rows += np.float32(0.1) * rng.standard_normal(rows.shape, dtype=np.float32)
    looks = np.zeros(num, LOOK)
    looks["hash"] = rng.integers(0, 256, (num, 8))
    looks["junk"][:, :3] = rng.uniform(0.2, 0.4, (num, 3))
    copies = np.arange(99, num, 100)
    blur = torch.from_numpy(rng.standard_normal((len(copies), 512), dtype=np.float32))
    features[copies] = features[copies - 1] + 0.01 * blur
    looks["hash"][copies] = looks["hash"][copies - 1]
    return features, looks, copies


SUBJECTS: Mapping[str, Subject] = {
    "file": Subject("images of a .npz (32 px)", (10_000, 100_000, 1_000_000), measure_file),
    "folder": Subject("photographs of a folder (64 px)", (1_000, 10_000, 50_000), measure_folder),
    "classes": Subject(
        "classes of a million images",
        (10, 100, 1_000, 10_000, 100_000),
        lambda size, _: measure_labels(1_000_000, size),
    ),
    "splits": Subject(
        "images of 100 classes",
        (10_000, 100_000, 1_000_000),
        lambda size, _: measure_labels(size, 100),
    ),
    "mining": Subject(
        "images, 512 features", (10_000, 100_000, 200_000, 1_000_000), measure_mining
    ),
    "processes": Subject("processes of one thread", (1, 2, 3, 4), measure_processes),
}


def show(facts: Mapping[str, Any]) -> None:
    """The tables, as Markdown."""
    print(
        f"{facts['hardware']}, torch {facts['torch']}, {facts['date']}, n = {facts['n']} rounds, ",
        end="",
    )
    print(f"load before {facts['load_before']:.1f}\n")
    for name, found in facts["subjects"].items():
        print(f"| {SUBJECTS[name].xlabel} | " + " | ".join(f"{x:,}" for x in found["x"]) + " |")
        print("|---|" + "---|" * len(found["x"]))
        for what, points in found["points"].items():
            print(f"| {what} | " + " | ".join(map(_cell, points)) + " |")
        print()


def _cell(point: Mapping[str, float]) -> str:
    digits = ".2f" if point["median"] >= 0.1 else ".4f"
    return f"{point['median']:{digits}} ({point['low']:{digits}} .. {point['high']:{digits}})"


def draw(facts: Mapping[str, Any], folder: Path) -> None:
    """One PNG a subject, double logarithmic: medians, with the range over the rounds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in facts["subjects"].items():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained", dpi=100)
        axes = figure.add_subplot()
        shown = [what for what in found["points"] if not what.startswith("of ")]
        for colour, what in zip(COLOURS, shown, strict=False):
            points = found["points"][what]
            axes.plot(
                found["x"], [p["median"] for p in points], "o-", color=colour, label=what, ms=4
            )
            axes.vlines(
                found["x"], [p["low"] for p in points], [p["high"] for p in points], color=colour
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(found["x"], [f"{x:,}" for x in found["x"]], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.set_xlabel(SUBJECTS[name].xlabel)
        axes.set_ylabel("seconds, or GB where said")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")

if __name__ == "__main__":
    main()
