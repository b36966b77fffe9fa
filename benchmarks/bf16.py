"""What bf16 gives on this CPU: by kind of operation, by network, and for the features that probes learn from.

    python benchmarks/bf16.py [--only profile ...] [--networks resnet10:16:32 ...] [--rounds 5] [--json FILE]

profile   forward and backward of a network in fp32, in bf16 and in bf16 compiled: CPU ms by kind of operation
networks  forward and backward of several networks, fp32 / bf16 in CPU seconds; and what the probe before a run says
features  CPU ms an image of features for probes in both precisions, and how many kNN answers on the digits are the same

CPU seconds, so that other work on the machine disturbs little. Medians and ranges over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench.rounds import cpu_seconds, summary
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.compute.device import bf16_speedup_of_cpu, describe_device
from sdclr.data import DataConfig, build_data
from sdclr.evaluation.features import extract_features
from sdclr.evaluation.knn import knn_predict

NETWORKS = ("resnet10:16:32", "resnet18:64:32", "resnet18:64:96")
"""Name, width, side of the images. Where bf16 is emulated, the last takes ten minutes a pass."""
PROFILED = ("resnet18", 64, 32)
BATCH = 64
KINDS = {
    "convolution": ("convolution", "conv2d"),
    "batch norm": ("batch_norm",),
    "copies and layout": ("copy_", "contiguous", "reorder", "to_mkldnn", "clone"),
    "elementwise (ReLU, sums)": ("relu", "threshold", "add", "mul", "fill", "zero", "sum", "mean"),
    "products of matrices": ("addmm", "mm", "linear"),
}
"""Kind -> parts of the names of torch's operations, the first that fits counts."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    subjects = SUBJECTS | {"networks": lambda rounds: networks(rounds, arguments.networks)}
    facts = {
        "kind": "bf16",
        "date": datetime.date.today().isoformat(),
        "hardware": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
        "n": arguments.rounds,
        "subjects": {name: subjects[name](arguments.rounds) for name in arguments.only},
    }
    show(facts)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def pass_of(name: str, width: int, side: int, precision: str) -> Callable[[], None]:
    """One forward and backward pass, as a step makes it."""
    torch.manual_seed(0)
    network: nn.Module = build_backbone(BackboneConfig(name=name, width=width)).train()
    network = network.to(memory_format=torch.channels_last)
    if precision == "bf16 compiled":
        network.compile()
    images = torch.rand(BATCH, 3, side, side).to(memory_format=torch.channels_last)

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            found = network(images)
        found.float().square().mean().backward()

    return work


def profiles(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16", "bf16 compiled"):
        work = pass_of(*PROFILED, precision)
        for _ in range(2):
            work()
        by_kind: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for kind, milliseconds in _by_kind(work).items():
                by_kind[kind].append(milliseconds)
        found[precision] = {kind: summary(values) for kind, values in by_kind.items()}
    return found


def _by_kind(work: Callable[[], None]) -> dict[str, float]:
    """CPU ms of one pass by KINDS, "other" and "all"."""
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        work()
    totals = dict.fromkeys([*KINDS, "other", "all"], 0.0)
    for event in taken.key_averages():
        name = event.key.lower()
        kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "other")
        totals[kind] += event.self_cpu_time_total / 1e3
        totals["all"] += event.self_cpu_time_total / 1e3
    return totals


def networks(rounds: int, which: Sequence[str] = NETWORKS) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in which:
        name, width, side = text.split(":")
        works = {p: pass_of(name, int(width), int(side), p) for p in ("fp32", "bf16")}
        for work in works.values():
            work()
        ratios = []
        for _ in range(rounds):
            seconds = {p: cpu_seconds(work) for p, work in works.items()}
            ratios.append(seconds["fp32"] / seconds["bf16"])
        found[f"{name}, width {width}, {side} px"] = summary(ratios)
    found["the probe before a run"] = summary([bf16_speedup_of_cpu() for _ in range(rounds)])
    return found


def features(rounds: int) -> dict[str, Any]:
    digits = build_data(DataConfig(name="digits", subset="all")).train
    assert digits.labels is not None
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name="resnet10", width=16)).eval()
    backbone = backbone.to(memory_format=torch.channels_last)

    def extracted(precision: Any) -> Tensor:
        return extract_features(backbone, digits.stills(32), lambda _: None, str, precision)

    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    rows: dict[str, Tensor] = {}
    for _ in range(rounds):
        for precision, values in seconds.items():
            begun = time.process_time()
            rows[precision] = extracted(precision)
            values.append(1e3 * (time.process_time() - begun) / len(digits))
    half = len(digits) // 2
    predictions = {
        precision: knn_predict(x[:half], digits.labels[:half], x[half:])
        for precision, x in rows.items()
    }
    same = float((predictions["fp32"] == predictions["bf16"]).mean())
    return {
        **{
            f"{precision}, CPU ms an image": summary(values)
            for precision, values in seconds.items()
        },
        "kNN answers that are the same": summary([same]),
    }


SUBJECTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "profile": profiles,
    "networks": networks,
    "features": features,
}


def show(facts: dict[str, Any]) -> None:
    """The tables, as Markdown."""
    print(
        f"{facts['hardware']}, torch {facts['torch']}, {facts['date']}, n = {facts['n']}, ", end=""
    )
    print(f"load before {facts['load_before']:.1f}\n")
    for name, found in facts["subjects"].items():
        if name == "profile":
            kinds = list(next(iter(found.values())))
            print(
                f"| CPU ms, {PROFILED[0]} at {PROFILED[2]} px, {BATCH} images | {' | '.join(found)} |"
            )
            print("|---|" + "---|" * len(found))
            for kind in kinds:
                cells = [f"{found[p][kind]['median']:.0f}" for p in found]
                print(f"| {kind} | {' | '.join(cells)} |")
        else:
            print(f"| {name} | median | range |\n|---|---|---|")
            for what, point in found.items():
                print(
                    f"| {what} | {point['median']:.3f} | {point['low']:.3f} .. {point['high']:.3f} |"
                )
        print()


if __name__ == "__main__":
    main()
