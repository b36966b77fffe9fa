"""What a step of a method costs here against its base, and what RandAugment costs the views, in CPU seconds.

    python benchmarks/methods.py [--only views ...] [--rounds 7] [--width 64] [--batch 128] [--json FILE]

steps   forward, backward and update of each method over its base's: ResNet-18, 32 px, views not counted
clusters   one clustering of 10,000 projections of 128 numbers for cluster_balanced, over a step of SimCLR
views   two views of a batch of 32 px with RandAugment at the weights of BCL over the same views without it

The methods take turns, so that a drifting machine hits them alike; CPU seconds, so that other work disturbs little.
Medians and ranges over the rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench.rounds import cpu_seconds, measure, round_ratios, summary

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.batch import RandomOperations, Views
from sdclr.compute.device import describe_device
from sdclr.compute.optim import build_optimizer, set_learning_rate
from sdclr.compute.process_state import keep_freed_memory
from sdclr.data import ViewSpec, make_views
from sdclr.methods import METHODS, Parts, build_method
from sdclr.methods.cluster_balanced import balanced_weights

SUBJECTS = ("steps", "clusters", "views")
SIZE = 32
EPOCHS = 10
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "lotar": ("simclr", {"passes": "joint"}),
    "moco": ("simclr", {}),
    "vicreg": ("simclr", {}),
    "bcl_i": ("simclr", {}),
    "bcl_d": ("sdclr", {"projector_layers": 3}),
    "gh": ("simclr", {}),
    "cluster_balanced": ("simclr", {}),
}
"""Method -> its base, and the settings that make it comparable."""
VIEWS = {"bcl_i": (1, 10.0), "bcl_d": (2, 5.0)}
"""Method -> operations drawn, lowest strength."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    subjects: dict[str, Any] = {}
    if "steps" in arguments.only:
        subjects["steps"] = steps(arguments.rounds, arguments.width, arguments.batch)
    if "clusters" in arguments.only:
        subjects["clusters"] = clusters(arguments.rounds, arguments.width, arguments.batch)
    if "views" in arguments.only:
        subjects["views"] = views(arguments.rounds, arguments.batch)
    facts = {
        "kind": "methods",
        "date": datetime.date.today().isoformat(),
        "hardware": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
        "n": arguments.rounds,
        "setting": {"width": arguments.width, "batch": arguments.batch, "size": SIZE},
        "subjects": subjects,
    }
    print(f"{facts['hardware']}, {facts['date']}, n = {facts['n']}, {facts['setting']}")
    for subject, found in subjects.items():
        for name, ratio in found.items():
            text = "{median:.3f} ({low:.3f} .. {high:.3f})".format(**ratio)
            print(f"{subject:9} {name:32} {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def steps(rounds: int, width: int, batch: int) -> dict[str, Any]:
    """Every method's step over its base's."""
    names = {base for base, _ in STEPS.values()} | STEPS.keys()
    actions = {name: partial(cpu_seconds, step(name, width, batch)) for name in sorted(names)}
    for action in actions.values():
        action()
    times = measure(actions, rounds=rounds, seconds=1e9)
    return {
        f"{name} / {base}": summary(round_ratios(times[name], times[base]))
        for name, (base, _) in STEPS.items()
    }


def step(name: str, width: int, batch: int) -> Callable[[], object]:
    """One training step; of a method with a memory, one in which every image has been met."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name="resnet18", width=width))
    parts = Parts(backbone, 8 * width, num_images=10_000, num_epochs=EPOCHS, seed=0)
    own = STEPS.get(name, ("", {}))[1]
    method = build_method(METHODS[name].config.parse(own), parts).train()
    method = method.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method.parameters(), name="sgd", momentum=0.9, weight_decay=1e-4)
    set_learning_rate(optimizer, 1e-4)
    a, b = torch.rand(2, batch, 3, SIZE, SIZE).to(memory_format=torch.preserve_format)
    seen = Views(a, b, torch.arange(batch))
    for epoch in range(EPOCHS):  # the last epoch, where whatever sets in later is at work
        method.on_epoch_start(epoch)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        method(seen).mean().backward()
        optimizer.step()

    return work


def clusters(rounds: int, width: int, batch: int) -> dict[str, Any]:
    """A clustering of 10,000 projections into 100 and 10 clusters over a step; it is done once in many epochs."""
    projections = F.normalize(torch.randn(10_000, 128), dim=1)
    actions = {
        "clustering": partial(cpu_seconds, lambda: balanced_weights(projections, (100, 10), key=0)),
        "step": partial(cpu_seconds, step("simclr", width, batch)),
    }
    for action in actions.values():
        action()
    times = measure(actions, rounds=rounds, seconds=1e9)
    return {
        "clustering / simclr": summary(round_ratios(times["clustering"], times["step"])),
        "clustering, CPU seconds": summary(times["clustering"]),
    }


def views(rounds: int, batch: int) -> dict[str, Any]:
    """Two views of a batch with operations over the same without, at weights from 0 to 1 whose mean is 1/2."""
    images = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8)
    index, weight = torch.arange(batch), torch.linspace(0, 1, batch)

    def work(operations: RandomOperations | None) -> Callable[[], object]:
        spec = ViewSpec(size=SIZE, operations=operations)
        return lambda: [make_views(images, index, spec, seed=0, epoch=e) for e in range(8)]

    actions = {"plain": partial(cpu_seconds, work(None))}
    for name, asked in VIEWS.items():
        actions[name] = partial(cpu_seconds, work(RandomOperations(weight, *asked)))
    for action in actions.values():
        action()
    times = measure(actions, rounds=rounds, seconds=1e9)
    return {
        f"{name} / views without": summary(round_ratios(times[name], times["plain"]))
        for name in VIEWS
    }


if __name__ == "__main__":
    main()
