"""Provoked failures and healthy runs: which alarms each of them raises (docs/health.md).

    python benchmarks/health_campaign.py --out benchmarks/results/DATE-MACHINE-health.json

Eleven kinds of failure at two severities, and short runs without one over every method, precision, batch size, width,
seed and learning rate. Each trains two or three epochs on scikit-learn's digits. A failure is provoked where it would
happen: in the settings, in the data, in the function that cuts views or in what a step leaves behind. Alarms see
measurements alone. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import sdclr
from sdclr import PretrainConfig, recipe
from sdclr.batch import Views
from sdclr.compute.device import describe_device
from sdclr.data.sources.arrays import read_digits
from sdclr.data.views import augment
from sdclr.data.views.parameters import ViewParameters
from sdclr.errors import NonFiniteError
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.self_competitor import SelfCompetitor
from sdclr.methods.table import METHODS

MILD, SEVERE = "mild", "severe"
AfterStep = Callable[[nn.Module], None]


def config(*overrides: str, method: str = "sdclr") -> PretrainConfig:
    """Two epochs of a small network; checked after each."""
    base = recipe("digits_sdclr" if method == "sdclr" else "digits_simclr")
    first = [f"method.name={method}"] if method not in ("sdclr", "simclr") else []
    small = ["epochs=2", "backbone.width=4", "batch_size=64", "health_every_epochs=1"]
    return base.with_overrides([*first, *small, *overrides])


@contextlib.contextmanager
def after_steps(act: AfterStep) -> Iterator[None]:
    """``act`` on the method before the first step, and after every one."""
    taken = step_module.train_step

    def step(training: Training, state: TrainingState, views: Views) -> None:
        if state.step == 0:
            with torch.no_grad():
                act(training.method)
        taken(training, state, views)
        with torch.no_grad():
            act(training.method)

    with patch.object(step_module, "train_step", step):
        yield


def _norms(method: nn.Module) -> list[nn.Module]:
    network: Any = method.network
    return [one for one in network.backbone.modules() if isinstance(one, nn.BatchNorm2d)]


def _convolutions(method: nn.Module) -> list[nn.Conv2d]:
    network: Any = method.network
    return [one for one in network.backbone.modules() if isinstance(one, nn.Conv2d)]


def _kill_norms(how_many: slice) -> AfterStep:
    def act(method: nn.Module) -> None:
        for norm in _norms(method)[how_many]:
            nn.init.zeros_(norm.weight)  # type: ignore[arg-type]

    return act


def _freeze(how_many: slice) -> AfterStep:
    kept: dict[int, Tensor] = {}

    def act(method: nn.Module) -> None:
        for number, layer in enumerate(_convolutions(method)[how_many]):
            layer.weight.copy_(kept.setdefault(number, layer.weight.clone()))

    return act


def _flatten_weights(how_many: slice) -> AfterStep:
    def act(method: nn.Module) -> None:
        for layer in _convolutions(method)[how_many]:
            layer.weight.fill_(0.01)

    return act


@contextlib.contextmanager
def _identical_views(share: float) -> Iterator[None]:
    made = augment.make_views

    def make(images: Tensor, index: Tensor, *more: Any, **named: Any) -> Views:
        views = made(images, index, *more, **named)
        same = (index % 100 < 100 * share).view(-1, 1, 1, 1)
        return views._replace(b=torch.where(same, views.a, views.b))

    with patch.object(augment, "make_views", make):
        yield


@contextlib.contextmanager
def _one_crop(everything: bool) -> Iterator[None]:
    drawn = augment.draw_two_views  # type: ignore[attr-defined]

    def draw(*arguments: Any, **named: Any) -> ViewParameters:
        both = drawn(*arguments, **named)
        half = len(both.box) // 2

        def first_of_each(rows: Tensor) -> Tensor:
            return torch.cat(
                [rows[:1].expand_as(rows[:half]), rows[half : half + 1].expand_as(rows[half:])]
            )

        if everything:
            return ViewParameters(*map(first_of_each, both))
        return both._replace(box=first_of_each(both.box), flip=first_of_each(both.flip))

    with patch.object(augment, "draw_two_views", draw):
        yield


@contextlib.contextmanager
def _stale_masks(after: int) -> Iterator[None]:
    refresh = SelfCompetitor.refresh_masks

    def refresh_first(self: SelfCompetitor, draw: int = 0) -> None:
        if draw <= after:
            refresh(self, draw)

    with patch.object(SelfCompetitor, "refresh_masks", refresh_first):
        yield


@dataclass(frozen=True)
class Case:
    """One training."""

    name: str
    config: Callable[[Path], PretrainConfig]
    expected: str | None = None
    """The cause that must be named first; None: no alarm at all."""
    at_epoch: int = 1
    """By when."""
    provoked: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


def _settings(*overrides: str) -> Callable[[Path], PretrainConfig]:
    return lambda _: config(*overrides)


def _digits_as(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Path], PretrainConfig]:
    """The digits with other pixels or labels, as a .npz."""

    def make(folder: Path) -> PretrainConfig:
        pool = read_digits().train
        pixels, labels = change(pool.images.permute(0, 2, 3, 1).numpy().copy(), pool.labels)  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "digits.npz", train_images=pixels, train_labels=labels)
        return config().with_values(
            {"data.name": "arrays", "data.path": str(folder / "digits.npz")}
        )

    return make


def _blacked(share: float) -> Callable[[Path], PretrainConfig]:
    def change(pixels: Any, labels: Any) -> tuple[Any, Any]:
        pixels[np.random.default_rng(0).random(len(pixels)) < share] = 0
        return pixels, labels

    return _digits_as(change)


def _labels_of_others(share: float) -> Callable[[Path], PretrainConfig]:
    """This share of the images has labels in a random order."""

    def change(pixels: Any, labels: Any) -> tuple[Any, Any]:
        random = np.random.default_rng(0)
        rows = np.flatnonzero(random.random(len(labels)) < share)
        labels = labels.copy()
        labels[rows] = labels[random.permutation(rows)]
        return pixels, labels

    return _digits_as(change)


def failures() -> list[Case]:
    """Eleven kinds at two severities."""
    plain = _settings()

    def sown(name: str, finding: str, harm: AfterStep) -> Case:
        return Case(name, plain, finding, 1, lambda: after_steps(harm))

    return [
        Case("collapse, mild", _settings("optimizer.weight_decay=1"), "collapsed", 2),
        Case("collapse, severe", _settings("optimizer.weight_decay=3"), "collapsed", 2),
        Case("temperature, mild", _settings("method.temperature=0.01"), "temperature"),
        Case("temperature, severe", _settings("method.temperature=100"), "temperature"),
        Case(
            "learning rate, mild",
            _settings("optimizer.learning_rate=100", "optimizer.warmup_epochs=0"),
            "learning_rate",
        ),
        Case("learning rate, severe", _settings("optimizer.learning_rate=1e-7"), "learning_rate"),
        Case("identical views, mild", plain, "identical_views", 1, lambda: _identical_views(0.6)),
        Case("identical views, severe", plain, "identical_views", 1, lambda: _identical_views(1.0)),
        sown("dead norms, mild", "dead_norms", _kill_norms(slice(1, 2))),
        sown("dead norms, severe", "dead_norms", _kill_norms(slice(None))),
        Case("stale masks, mild", _settings("epochs=3"), "stale_masks", 3, lambda: _stale_masks(1)),
        Case("stale masks, severe", plain, "stale_masks", 2, lambda: _stale_masks(0)),
        Case("one crop, mild", plain, "one_crop", 1, lambda: _one_crop(False)),
        Case("one crop, severe", plain, "one_crop", 1, lambda: _one_crop(True)),
        Case("labels of another set, mild", _labels_of_others(0.9), "labels"),
        Case("labels of another set, severe", _labels_of_others(1.0), "labels"),
        Case("black images, mild", _blacked(0.6), "blank_images"),
        Case("black images, severe", _blacked(1.0), "blank_images"),
        sown("a frozen layer, mild", "frozen_layer", _freeze(slice(3, 4))),
        sown("frozen layers, severe", "frozen_layer", _freeze(slice(None))),
        sown("constant weights, mild", "constant_weights", _flatten_weights(slice(3, 4))),
        sown("constant weights, severe", "constant_weights", _flatten_weights(slice(None))),
    ]


def healthy(count: int) -> list[Case]:
    """Runs without a failure, each another one: methods in turn, and every second or third thing changed.

    The boldest of them (a rate of 0.3 for batches of 8) may diverge on one processor and not on another. One that
    does is not healthy, and is counted apart.
    """
    methods = tuple(name for name in METHODS if not METHODS[name].origin)
    cases = []
    for number in range(count):
        method = methods[number % len(methods)]
        more = [
            f"seed={number}",
            f"batch_size={(64, 8, 128, 32, 16)[number % 5]}",
            f"precision={('fp32', 'bf16')[number // len(methods) % 2]}",
            f"backbone.width={(4, 2, 8)[number % 3]}",
            f"optimizer.learning_rate={(0.3, 0.1, 0.03)[number // 3 % 3]}",
            f"epochs={(2, 3)[number // 2 % 2]}",
        ]
        cases.append(
            Case(
                f"healthy {number}: {method}, {', '.join(more)}",
                lambda _, method=method, more=tuple(more): config(*more, method=method),  # type: ignore[misc]
            )
        )
    return cases


@dataclass(frozen=True)
class Seen:
    """What one training has raised."""

    case: Case
    by_epoch: list[list[str]]
    """Causes, in the order of the alarms."""
    lines: list[dict[str, float]]
    diverged: bool
    """It was refused to go on: a loss that is not finite, which is named without an alarm."""

    @property
    def right(self) -> bool:
        if self.case.expected is None:
            return not any(self.by_epoch)
        earlier = [causes for causes in self.by_epoch[: self.case.at_epoch] if causes]
        return bool(earlier) and all(causes[0] == self.case.expected for causes in earlier)


def see(case: Case, folder: Path) -> Seen:
    """Train, and read what was written."""
    settings = case.config(folder / "data")
    with warnings.catch_warnings(), case.provoked():
        warnings.simplefilter("ignore")
        try:
            sdclr.pretrain(settings, folder / "run")
            diverged = False
        except NonFiniteError:
            diverged = True
    lines = sdclr.Run(folder / "run").metrics()
    causes = [
        [name.removeprefix("alarm_") for name in line if name.startswith("alarm_")]
        for line in lines
    ]
    return Seen(case, causes, lines, diverged)


def ranges(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Smallest and largest value of each measure over all checks of the healthy runs."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for line in row["measured"] if row["expected"] is None else []:
            for name, value in line.items():
                if name.startswith(("health_", "untrained_")):
                    found.setdefault(name, []).append(value)
    return {name: [min(values), max(values)] for name, values in found.items()}


def write(out: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The alarms of every run, and between which numbers the healthy ones lay."""
    alarms = [{name: value for name, value in row.items() if name != "measured"} for row in rows]
    content = {**facts, "healthy_ranges": ranges(rows), "runs": alarms}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--healthy", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate([*failures(), *healthy(options.healthy)]):
            seen = see(case, Path(folder) / str(number))
            rows.append(
                {
                    "case": case.name,
                    "expected": case.expected,
                    "alarms": seen.by_epoch,
                    "right": seen.right,
                    "diverged": seen.diverged,
                    "measured": seen.lines,
                }
            )
            word = "DIVERGED" if seen.diverged else "ok" if seen.right else "WRONG"
            print(f"{word:8} {case.name}: {seen.by_epoch}", flush=True)
    sound = [row for row in rows if row["expected"] is None and not row["diverged"]]
    facts = {
        "command": f"python benchmarks/health_campaign.py --healthy {options.healthy}",
        "machine": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "failures_named": sum(row["right"] for row in rows if row["expected"]),
        "failures": sum(row["expected"] is not None for row in rows),
        "healthy_silent": sum(row["right"] for row in sound),
        "healthy": len(sound),
        "diverged": options.healthy - len(sound),
    }
    print(facts)
    write(options.out, facts, rows)


if __name__ == "__main__":
    main()
