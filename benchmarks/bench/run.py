"""The bench: settings in, everything timed in turns, ratios and bounds out, as a table and as JSON."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.text import Text

from bench.bounds import SMALL, Work
from bench.budget import WARM_UP_SHARE, affordable, by_importance, indispensable
from bench.contestants import (
    STEPS_PER_EPOCH,
    Contestants,
    Workload,
    config_of,
    is_step,
    variant,
    warm_ups,
)
from bench.machine import file_name, flops_of, has_bf16, peak_memory
from bench.ratios import Measured, ratios_of
from bench.rounds import Action, Times, measure, summary, whole_rounds
from bench.show import show
from sdclr.backbones import BackboneConfig
from sdclr.backbones.image_sizes import fitted_to
from sdclr.compute.compiling import CompiledAs, resolve_compile
from sdclr.compute.device import autocast, describe_device, resolve_device
from sdclr.compute.device_choices import Compile, Precision
from sdclr.compute.process_state import keep_freed_memory
from sdclr.errors import ConfigError, Preempted
from sdclr.jobs.pretrain.build import graphs_hold
from sdclr.jobs.pretrain.training import Training
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.processes.signals import StopRequest, stop_on_signal
from sdclr.safe_text import shown
from sdclr.storage.durable_files import write_atomically
from sdclr.storage.output_files import lexists, output_file, write_output

RESULTS = Path("benchmarks/results")
"""Where results go when the command runs in a checkout."""


@dataclass(frozen=True)
class Settings:
    """What to bench. None: what suits the device."""

    backbone: str = "resnet18"
    width: int = 64
    size: int = 32
    batch: int | None = None
    """None: 128 on a CPU, 512 on CUDA."""
    precisions: tuple[str, ...] | None = None
    """The first is the main one, which also runs end to end. None: fp32, then bf16 where the device has it; on CUDA
    bf16 first."""
    compiled: str = "auto"
    """on, off, both, cuda-graphs, or auto: what `compile=auto` does for a long run; where that is CUDA graphs, the
    compiled step without them beside it."""
    rounds: int = 7
    minutes: float | None = None
    """Of the whole, warming up included. What does not fit is left out and named; after the first round, none begins
    that would not end in time. None: 4; on CUDA, where half a dozen graphs are compiled first, 10."""
    device: str = "auto"


def run_bench(
    settings: Settings,
    *,
    json_file: Path | None = None,
    console: Console,
    progress: AnyProgress | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Measure, write, print; returns what was written.

    ``json_file``: None writes benchmarks/results/<date>-<hardware>.json when that folder is there. A file that exists
    is an error before minutes are spent, unless ``overwrite``; under a default name its successor gets a number.
    Told to stop (SIGTERM, Ctrl-C), it writes what is measured by then; Preempted where that is nothing worth writing.
    """
    if json_file is None:
        facts = measured(settings, progress or NoProgress())
        json_file = _default_file(facts) if RESULTS.is_dir() else None
        if json_file is not None:
            write_output(json_file, _as_json(facts), overwrite=overwrite, option="--json")
    else:
        with output_file(json_file, overwrite=overwrite, option="--json"):
            facts = measured(settings, progress or NoProgress())
            write_atomically(json_file, _as_json(facts))
    show(facts, console)
    if json_file is not None:
        console.print(Text(f"written: {shown(json_file)}"), soft_wrap=True)
    return facts


def _as_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def _default_file(facts: dict[str, Any]) -> Path:
    usual = facts["settings"]["work"] == list(
        SMALL["cuda" if facts["hardware"].startswith("CUDA") else "cpu"]
    )
    work = "" if usual else "{} width {} {}px batch {}".format(*facts["settings"]["work"])
    first = RESULTS / file_name(facts["date"], facts["hardware"], work)
    later = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], later) if not lexists(path))


def _load() -> float | None:
    """Processes that were ready to run, over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@dataclass(frozen=True)
class _Bench:
    """Settings with what suits the device filled in."""

    settings: Settings
    device: torch.device
    precisions: list[Precision]
    """The first is the main one."""
    ways: list[tuple[Precision, CompiledAs]]
    work: Work
    backbone: BackboneConfig
    minutes: float

    @property
    def main(self) -> str:
        return variant(*self.ways[0])


def measured(settings: Settings, progress: AnyProgress) -> dict[str, Any]:
    """Everything that the JSON file says."""
    begun, load = time.perf_counter(), _load()
    bench = _prepared(settings)
    if bench.device.type == "cpu":
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        entrants, training = _entrants(bench, Path(folder) / "images.npz")
        with autocast(bench.device, training.precision):
            flops = flops_of(lambda: training.method(entrants.ready).mean().backward())
        training.optimizer.zero_grad()  # gradients must not be added to those of CUDA graphs
        total = (settings.rounds + 1) * len(entrants.actions)
        task = progress.add("bench", total=total, unit="measurements")
        names = list(entrants.actions)
        deadline = begun + 60 * bench.minutes
        warm_until = begun + WARM_UP_SHARE * 60 * bench.minutes
        advance = partial(progress.advance, task)
        warm, rounds = WarmedUp(), Times()
        with until_told_to_stop() as stop:
            warm_up(entrants.actions, warm, bench.device, bench.main, warm_until, advance)
            left = deadline - time.perf_counter()
            kept = affordable(warm.seconds, left, bench.main)
            chosen = {name: entrants.actions[name] for name in kept}
            measure(chosen, rounds=settings.rounds, seconds=left, advance=advance, into=rounds)
        num_rounds = whole_rounds(rounds)
        progress.finish(task, f"{num_rounds} rounds")
    in_rounds = {name: taken[:num_rounds] for name, taken in rounds.items() if num_rounds}
    # where there was no time for a round, the last call of the warming up is better than nothing
    once = {name: [seconds] for name, seconds in warm.seconds.items() if name not in in_rounds}
    times = once | in_rounds
    stopped = f"stopped by {stop.signal_name}" if stop.signal_name else ""
    missing = [name for name in names if indispensable(name, bench.main) and name not in times]
    if missing:
        raise Preempted(f"{stopped} before {', '.join(missing)} was timed: nothing is written.")
    late = f"left out: {stopped or f'{bench.minutes:g} minutes are over'}"
    left_out = {name: late for name in names if name not in times}
    warm_enough = in_rounds | {name: taken for name, taken in once.items() if warm_ups(name)}
    timed_once = {
        name: "timed once, after it was warmed up"
        if name in warm_enough
        else "timed once, in its first call: in no ratio"
        for name in once
    }
    remarks = timed_once | entrants.fallen_back() | left_out | warm.failed
    if stopped:
        remarks["bench"] = stopped
    found = Measured(
        warm_enough,
        entrants.waiting_shares,
        bench.precisions,
        bench.main,
        bench.work,
        bench.device,
        flops,
    )
    measurements = {
        "elapsed_seconds": time.perf_counter() - begun,
        "n": max(num_rounds, 1),
        "steps_per_epoch": STEPS_PER_EPOCH,
        "steps_in_a_row": STEPS_PER_EPOCH if bench.device.type == "cuda" else 1,
        "seconds": {name: summary(values) for name, values in times.items()},
        "peak_memory_bytes": warm.memory,
        "flops_per_step": flops,
        "matmul_flops_per_second": {
            p: found.peak(p) for p in bench.precisions if f"matmul[{p}]" in warm_enough
        },
        "not_installed": entrants.not_installed,
        "remarks": remarks,
    }
    return _circumstances(bench, load) | measurements | ratios_of(found, remarks)


def _prepared(settings: Settings) -> _Bench:
    """ConfigError for settings that do not fit together."""
    device = resolve_device(settings.device)
    on_cuda, own = device.type == "cuda", ":" not in settings.backbone
    precisions = _precisions(settings, device)
    if not own and settings.width != 64:
        raise ConfigError(
            f"--width is for our own ResNets; {settings.backbone} has its own. Leave it out."
        )
    stem = "large" if settings.size >= 128 else "small"
    ours: dict[str, Any] = {"width": settings.width, "stem": stem} if own else {}
    batch = settings.batch or (512 if on_cuda else 128)
    backbone = fitted_to(BackboneConfig(name=settings.backbone, **ours), settings.size)
    ways = _ways(
        settings, precisions, device, graphed=graphs_hold(config_of(backbone, settings.size))
    )
    usual_minutes = 10.0 if on_cuda else 4.0
    return _Bench(
        settings,
        device,
        precisions,
        ways,
        Work(settings.backbone, settings.width, settings.size, batch),
        backbone,
        usual_minutes if settings.minutes is None else settings.minutes,
    )


def _entrants(bench: _Bench, images: Path) -> tuple[Contestants, Training]:
    """All that is to be timed, and the training of the last way of running steps."""
    work = bench.work
    entrants = Contestants(Workload(bench.backbone, work.size, work.batch, bench.device, images))
    first = bench.precisions[0]
    end_to_end = {bench.main, variant(first, True)}
    for precision, how in bench.ways:
        with_data = variant(precision, how) in end_to_end
        training = entrants.add_steps(precision, how, with_data=with_data)
    entrants.add_reference()
    entrants.add_views()
    entrants.add_losses()
    entrants.add_lightly(first)
    return entrants, training


def _circumstances(bench: _Bench, load: float | None) -> dict[str, Any]:
    """When, on what, and with which settings."""
    now = datetime.datetime.now(datetime.UTC)
    resolved = {
        "batch": bench.work.batch,
        "precisions": bench.precisions,
        "minutes": bench.minutes,
        "main": bench.main,
        "work": list(bench.work),
    }
    return {
        "kind": "bench",
        "date": now.date().isoformat(),
        "created": now.isoformat(timespec="seconds"),
        "hardware": describe_device(bench.device),
        "host": describe_device(torch.device("cpu")),
        "load_before": load,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": asdict(bench.settings) | resolved,
    }


@contextlib.contextmanager
def until_told_to_stop() -> Iterator[StopRequest]:
    """A block that SIGTERM, Ctrl-C and their like end at once and without an error."""
    stop = StopRequest()
    try:
        with stop_on_signal() as stop:
            yield stop
    except (Preempted, RuntimeError):
        if stop.signal_name is None:
            raise
        # workers that got the signal too end as well, for which torch would raise out of whatever is next
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@dataclass
class WarmedUp:
    """What is known of every action by name, once it has run: filled in one by one."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of its last call."""
    memory: dict[str, int | None] = field(default_factory=dict)
    """Bytes at its peak; None where that cannot be seen."""
    failed: dict[str, str] = field(default_factory=dict)
    """What went wrong with those that were taken out."""


def warm_up(
    actions: dict[str, Action],
    found: WarmedUp,
    device: torch.device,
    main: str,
    until: float = math.inf,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Run everything once, or until it is compiled and recorded, and write it into ``found``.

    CUDA graphs that fail are taken out of ``actions``, unless they are ``main``: what is beside them is worth having.
    So is what ``until``, a time of ``time.perf_counter``, leaves no time for.
    """
    for name in by_importance(actions, main):
        action = actions[name]
        taken: list[float] = []

        def once(action: Action = action, taken: list[float] = taken) -> None:
            taken.append(action())

        if time.perf_counter() > until and not indispensable(name, main):
            del actions[name]
            continue
        try:
            for _ in range(warm_ups(name)):
                action()
            if is_step(name) and "_end_to_end" not in name:  # workers are other processes
                memory = peak_memory(once, device)
                # a replay allocates nothing: its memory was set aside when it was recorded
                if "cuda-graphs" not in name:
                    found.memory[name] = memory
            else:
                once()
            found.seconds[name] = taken[-1]
        except RuntimeError as error:
            if "cuda-graphs" not in name or "cuda-graphs" in main:
                raise
            found.failed[name] = f"failed: {str(error).partition(chr(10))[0]}"
            del actions[name]
        advance()


def _precisions(settings: Settings, device: torch.device) -> list[Precision]:
    if settings.precisions is not None:
        if not settings.precisions:
            raise ConfigError("--precision takes fp32, bf16 or both with a comma, and got nothing.")
        if unknown := set(settings.precisions) - {"fp32", "bf16"}:
            raise ConfigError(f"--precision takes fp32 and bf16, got {', '.join(sorted(unknown))}.")
        return [cast(Precision, name) for name in settings.precisions]
    if not has_bf16(device):
        return ["fp32"]
    return ["bf16", "fp32"] if device.type == "cuda" else ["fp32", "bf16"]


def _ways(
    settings: Settings, precisions: list[Precision], device: torch.device, *, graphed: bool
) -> list[tuple[Precision, CompiledAs]]:
    """How steps are run; the first way is the main one. ``graphed``: whether auto may take CUDA graphs."""
    choices: dict[str, list[Compile]] = {
        "auto": ["auto"],
        "on": [True],
        "off": [False],
        "both": [True, False],
        "cuda-graphs": ["cuda-graphs"],
    }
    if settings.compiled not in choices:
        raise ConfigError(
            f"--compile must be auto, on, off, both or cuda-graphs, got {settings.compiled!r}."
        )
    compiled = [
        resolve_compile(choice, device, graphs_hold=graphed)
        for choice in choices[settings.compiled]
    ]
    ways = [(precision, how) for precision in precisions for how in compiled]
    if settings.compiled == "auto" and "cuda-graphs" in compiled:  # what they give
        ways.insert(1, (precisions[0], True))
    return ways
