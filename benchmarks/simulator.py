"""What training on more GPUs and more images costs on paper, from what was measured on one GPU and a few processes.

    python benchmarks/simulator.py             # the fit, its check on points that were held out, and the tables
    python benchmarks/simulator.py --page      # the same, written into docs/scaling.md between its two markers

Two models are fitted and then checked on points that they have not seen:

step     t(P) = W / min(P, C) + x (P - 1): W seconds of work on C cores, x of exchanges for each further process.
         Fitted on 1 and 2 processes, checked on 3 and 4.
start    t(N) = a + b N for N images. Fitted on all sizes but the largest, checked on the largest.

What 1 to 512 GPUs take is a sum of parts: the measured step of one GPU, and exchanges by bytes and latency with the
ASSUMED rates below, nothing of them hidden behind the backward pass. No second GPU was ever at hand: every number for
more than one is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marked_pages import Markers

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scaling.md"
MARKERS = Markers("<!-- simulator: written by benchmarks/simulator.py -->", "<!-- /simulator -->")

PROCESSES = "2026-11-26-amd-epyc-growth-processes.json"
STARTS = "2026-11-27-amd-epyc-growth-starts.json"
SPLITS = "2026-11-26-amd-epyc-growth-labels.json"
ON_H100 = "2026-11-26-nvidia-h100-device-facts.json"
DECODING = "2026-11-28-amd-epyc-images-1-core.json"
WITHIN = 0.25
"""How far a prediction may lie from what was measured."""

GPUS = (1, 8, 64, 512)
IMAGES = (10**5, 10**7, 10**9)
GPUS_PER_MACHINE = 8
CORES_PER_GPU = 16  # of the machine with the H100 that was measured
NVLINK = 450e9
"""ASSUMED bytes a second between GPUs of one machine, one direction; the data sheet of an H100."""
NETWORK = 50e9
"""ASSUMED bytes a second between machines for each GPU, one direction: 400 Gb/s."""
LATENCY = {True: 10e-6, False: 20e-6}
"""ASSUMED seconds of one hop of a small exchange, of log2(GPUs) hops; by whether all GPUs are in one machine."""
LOSS_RATE = 50e12
"""ASSUMED FLOP a second of the loss's products in fp32."""
PRICE = 3.0
"""ASSUMED dollars for an hour of one GPU."""
JPEG_BYTES = 100e3
"""ASSUMED bytes of a photograph as it is stored."""
PROJECTION_DIM = 128


@dataclass(frozen=True)
class Work:
    """A network on one GPU."""

    name: str
    batch: int
    """Images a GPU and step."""
    step_seconds: float
    """Of one GPU, alone."""
    parameters: float
    norms: int
    """Batch norm layers."""
    branches: int
    side: int
    """Of a view in pixels."""
    from_files: bool
    """Whether each image is decoded for each epoch."""
    measured: bool


@dataclass(frozen=True)
class Fit:
    """A prediction of a point that was held out."""

    what: str
    predicted: float
    measured: float
    unit: str

    @property
    def off(self) -> float:
        return self.predicted / self.measured - 1


def read(name: str) -> dict[str, Any]:
    subjects: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))["subjects"]
    return subjects


def medians(subject: Mapping[str, Any], what: str) -> tuple[list[float], list[float]]:
    """Sizes, and the median at each."""
    return list(subject["x"]), [point["median"] for point in subject["points"][what]]


def step_model(one: float, two: float, cores: int = 2) -> tuple[float, float]:
    """W and x of the step's model, from 1 and 2 processes."""
    return one, two - one / min(2, cores)


def step_seconds(processes: float, work: float, exchange: float, cores: int = 2) -> float:
    return work / min(processes, cores) + exchange * (processes - 1)


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """a and b of a + b x with the least sum of squared relative errors."""
    weights = [1 / value**2 for value in y]
    total = sum(weights)
    mean_x = sum(w * v for w, v in zip(weights, x, strict=True)) / total
    mean_y = sum(w * v for w, v in zip(weights, y, strict=True)) / total
    above = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True))
    below = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
    slope = above / below
    return mean_y - slope * mean_x, slope


def held_out() -> list[Fit]:
    """Every prediction of a point that the fit has not seen."""
    counts, seconds = medians(read(PROCESSES)["processes"], "seconds a step")
    work, exchange = step_model(seconds[0], seconds[1])
    found = [
        Fit(f"a step, {count} processes", step_seconds(count, work, exchange), seen, "s")
        for count, seen in zip(counts[2:], seconds[2:], strict=True)
    ]
    starts = read(STARTS)
    for subject, what, name, unit in (
        (starts["file"], "CPU seconds", "reading a .npz", "s"),
        (starts["file"], "peak memory, GB", "memory of a .npz", "GB"),
        (starts["folder"], "first start, seconds", "first start with a folder", "s"),
        (read(SPLITS)["splits"], "a split, CPU seconds", "drawing a split", "s"),
    ):
        sizes, values = medians(subject, what)
        a, b = line(sizes[:-1], values[:-1])
        largest = f"{name}, {sizes[-1]:,} images"
        found.append(Fit(largest, a + b * sizes[-1], values[-1], unit))
    return found


def exchange_parts(work: Work, gpus: int) -> dict[str, float]:
    """Seconds a step by what is exchanged or grows with the number of GPUs; nothing overlaps."""
    if gpus == 1:
        return {}
    inside = gpus <= GPUS_PER_MACHINE
    rate, latency = NVLINK if inside else NETWORK, LATENCY[inside]
    hops, share = math.log2(gpus), (gpus - 1) / gpus
    projections = 2 * work.batch * gpus * PROJECTION_DIM * 4
    pairs = (2 * work.batch) * (2 * work.batch * gpus)
    alone = (2 * work.batch) ** 2
    norms = 2 * work.norms * work.branches  # forward and backward
    return {
        "gradients": 2 * share * work.parameters * 4 / rate + hops * latency,
        "norms": norms * hops * latency,
        "projections": 2 * share * projections / rate + hops * latency,
        "loss": 6 * PROJECTION_DIM * (pairs - alone) / LOSS_RATE,
    }


def works() -> list[Work]:
    steps = read(ON_H100)["steps"]["bf16, cuda-graphs"]
    small = steps["sdclr"]["ms"]["median"] / 1000
    estimate = 2 * 512 / 2800  # not measured: 2,800 views a second
    return [
        Work("ResNet-18, 32 px, in memory", 512, small, 11.2e6, 20, 2, 32, False, True),
        Work("ResNet-50, 224 px, from files", 512, estimate, 23.5e6, 53, 2, 224, True, False),
    ]


def seconds_of(work: Work, gpus: int) -> tuple[float, dict[str, float]]:
    """Of a step, whole and by part."""
    parts = {"one GPU's own step": work.step_seconds} | exchange_parts(work, gpus)
    if work.from_files:
        decoding = work.batch / (CORES_PER_GPU * images_decoded_per_core())
        if decoding > sum(parts.values()):
            parts["waiting for decoding"] = decoding - sum(parts.values())
    return sum(parts.values()), parts


def images_decoded_per_core() -> float:
    """A second, of 400 x 533 pixels, both views of 224 px cut out of them; colours are the GPU's."""
    facts = json.loads((RESULTS / DECODING).read_text(encoding="utf-8"))
    rate: float = facts["images_per_core_second"]["cuts_of_files"]
    return rate


def scaling_row(work: Work, gpus: int) -> list[str]:
    whole, parts = seconds_of(work, gpus)
    others = {name: value for name, value in parts.items() if name != "one GPU's own step"}
    largest = max(others, key=lambda name: others[name], default="")
    share = f"{largest}, {100 * others[largest] / whole:.0f} %" if largest else ""
    batch = work.batch * gpus
    tiles = 512 * 2 * batch * 4 / 1e9
    return [
        f"{gpus}",
        f"{batch:,}",
        f"{1000 * whole:.1f}",
        f"{2 * batch / whole:,.0f}",
        f"{100 * work.step_seconds / whole:.0f} %",
        share,
        f"{tiles:.2g}",
    ]


def images_row(work: Work, images: int, gpus: int, epochs: int = 100) -> list[str]:
    whole, _ = seconds_of(work, gpus)
    steps = math.ceil(images / (work.batch * gpus))
    hours = epochs * steps * whole / 3600
    stored = images * (JPEG_BYTES if work.from_files else 3 * work.side**2)
    order = 8 * images / 1e9
    return [
        f"{images:,}",
        f"{gpus}",
        f"{steps:,}",
        _short(hours),
        _short(hours * gpus),
        _short(hours * gpus * PRICE),
        _bytes(stored),
        f"{order:.2g}",
    ]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _bytes(number: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e6:.3g} MB"


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def section() -> str:
    """What the page says between its markers."""
    fits = held_out()
    checked = table(
        ["held out", "predicted", "measured", "off by"],
        [
            [f.what, f"{f.predicted:.3g} {f.unit}", f"{f.measured:.3g} {f.unit}", f"{f.off:+.0%}"]
            for f in fits
        ],
    )
    within = sum(abs(fit.off) <= WITHIN for fit in fits)
    parts = [checked, f"{within} of {len(fits)} within {WITHIN:.0%}."]
    for work in works():
        origin = "measured on one H100" if work.measured else "the step of one GPU is an estimate"
        parts.append(
            f"**{work.name}**, {work.batch} images a GPU; {origin}, the rest extrapolated."
        )
        names = ["GPUs", "batch", "ms a step", "views/s", "efficiency"]
        names += ["largest cost of several", "GB of a tile row of the loss"]
        parts.append(table(names, [scaling_row(work, gpus) for gpus in GPUS]))
        names = ["images", "GPUs", "steps an epoch", "hours for 100 epochs", "GPU hours", "dollars"]
        names += ["stored", "GB of an epoch's order, each process"]
        rows = [
            images_row(work, images, gpus)
            for images, gpus in zip(IMAGES, (1, 64, 512), strict=True)
        ]
        parts.append(table(names, rows))
    return "\n\n".join(parts)


def rewritten(page: str) -> str:
    return MARKERS.rewritten(page, section())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help="write into docs/scaling.md")
    if parser.parse_args().page:
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(section())


if __name__ == "__main__":
    main()
