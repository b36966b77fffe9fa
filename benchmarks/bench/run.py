"""The bench: settings in, everything timed in turns, ratios and bounds out, as a table and as JSON."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.text import Text

from bench.bounds import MEANINGS, SMALL, Work, judged
from bench.budget import WARM_UP_SHARE, affordable, by_importance, indispensable
from bench.contestants import STEPS_PER_EPOCH, Contestants, Workload, is_step, variant, warm_ups
from bench.machine import file_name, flops_of, has_bf16, matmul_side, peak_memory
from bench.rounds import Action, Times, cost, measure, round_ratios, summary
from bench.show import show
from sdclr.backbones import BackboneConfig
from sdclr.backbones.image_sizes import fitted_to
from sdclr.compute.device import CompiledAs, describe_device, resolve_compile, resolve_device
from sdclr.compute.device_choices import Compile, Precision
from sdclr.compute.process_state import keep_freed_memory
from sdclr.errors import ConfigError
from sdclr.presentation.progress import AnyProgress, NoProgress
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
    """on, off, both, cuda-graphs, or auto: what `compile=auto` does for a long run; on CUDA, below 128 px, CUDA
    graphs beside it."""
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


def measured(settings: Settings, progress: AnyProgress) -> dict[str, Any]:
    begun, load = time.perf_counter(), _load()
    device = resolve_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    precisions = _precisions(settings, device)
    ways = _ways(settings, precisions, device)
    main = variant(*ways[0])
    minutes = (
        settings.minutes if settings.minutes is not None else 10.0 if device.type == "cuda" else 4.0
    )
    batch = settings.batch or (512 if device.type == "cuda" else 128)
    ours: dict[str, Any] = {
        "width": settings.width,
        "stem": "large" if settings.size >= 128 else "small",
    }
    if ":" in settings.backbone and settings.width != 64:
        raise ConfigError(
            f"--width is for our own ResNets; {settings.backbone} has its own. Leave it out."
        )
    work = Work(settings.backbone, settings.width, settings.size, batch)
    asked = BackboneConfig(name=settings.backbone, **(ours if ":" not in settings.backbone else {}))
    backbone = fitted_to(asked, settings.size)
    with tempfile.TemporaryDirectory() as folder:
        entrants = Contestants(
            Workload(backbone, settings.size, batch, device, Path(folder) / "images.npz")
        )
        end_to_end = {main, variant(precisions[0], "cuda-graphs")}
        for precision, how in ways:
            training = entrants.add_steps(
                precision, how, with_data=variant(precision, how) in end_to_end
            )
        entrants.add_reference()
        entrants.add_views()
        entrants.add_losses()
        entrants.add_lightly(precisions[0])
        task = progress.add(
            "bench", total=(settings.rounds + 1) * len(entrants.actions), unit="measurements"
        )
        names = list(entrants.actions)
        deadline = begun + 60 * minutes
        warm_until = begun + WARM_UP_SHARE * 60 * minutes
        advance = partial(progress.advance, task)
        memory, failed, once = warmed_up(entrants.actions, device, main, warm_until, advance)
        training.optimizer.zero_grad()  # gradients out of CUDA graphs must not be added to
        flops = flops_of(lambda: training.method(entrants.ready).mean().backward())
        left = deadline - time.perf_counter()
        chosen = {name: entrants.actions[name] for name in affordable(once, left, main)}
        times = measure(chosen, rounds=settings.rounds, seconds=left, advance=advance)
        left_out = {
            name: f"left out: {minutes:g} minutes are over" for name in names if name not in chosen
        }
        num_rounds = len(times["mask_refresh"])
        progress.finish(task, f"{num_rounds} rounds")
    now = datetime.datetime.now(datetime.UTC)
    facts = {
        "kind": "bench",
        "date": now.date().isoformat(),
        "created": now.isoformat(timespec="seconds"),
        "hardware": describe_device(device),
        "host": describe_device(torch.device("cpu")),
        "load_before": load,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": asdict(settings)
        | {
            "batch": batch,
            "precisions": precisions,
            "minutes": minutes,
            "main": main,
            "work": list(work),
        },
        "elapsed_seconds": time.perf_counter() - begun,
        "n": num_rounds,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "seconds": {name: summary(values) for name, values in times.items()},
        "peak_memory_bytes": memory,
        "flops_per_step": flops,
        "matmul_flops_per_second": {
            p: _peak(times, p, device) for p in precisions if f"matmul[{p}]" in times
        },
        "not_installed": entrants.not_installed,
        "remarks": entrants.fallen_back() | left_out | failed,
    }
    return facts | _ratios(times, entrants.waiting_shares, facts, work, device, main)


def warmed_up(
    actions: dict[str, Action],
    device: torch.device,
    main: str,
    until: float = math.inf,
    advance: Callable[[], object] = lambda: None,
) -> tuple[dict[str, int | None], dict[str, str], dict[str, float]]:
    """Run everything once, or until it is compiled and recorded.

    Returns peak memory, what went wrong, and the seconds that one call takes, by name. CUDA graphs that fail are taken
    out of ``actions``, unless they are ``main``: what is beside them is worth having. So is what ``until``, a time of
    ``time.perf_counter``, leaves no time for.
    """
    memory: dict[str, int | None] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in by_importance(actions, main):
        action = actions[name]

        def once(name: str = name, action: Action = action) -> None:
            seconds[name] = action()

        if time.perf_counter() > until and not indispensable(name, main):
            del actions[name]
            continue
        try:
            if is_step(name) and "_end_to_end" not in name:  # workers are other processes
                for _ in range(warm_ups(name)):
                    action()
                memory[name] = peak_memory(once, device)
            else:
                once()
        except RuntimeError as error:
            if "cuda-graphs" not in name or "cuda-graphs" in main:
                raise
            failed[name] = f"failed: {str(error).partition(chr(10))[0]}"
            del actions[name]
            seconds.pop(name, None)
        if "cuda-graphs" in name:
            # a replay allocates nothing: its memory was set aside when it was recorded
            memory.pop(name, None)
        advance()
    return memory, failed, {name: seconds[name] for name in actions}


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
    settings: Settings, precisions: list[Precision], device: torch.device
) -> list[tuple[Precision, CompiledAs]]:
    """How steps are run; the first way is the main one."""
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
    compiled = [resolve_compile(choice, device) for choice in choices[settings.compiled]]
    ways = [(precision, how) for precision in precisions for how in compiled]
    # long steps have none to gain
    if settings.compiled == "auto" and device.type == "cuda" and settings.size < 128:
        ways.append((precisions[0], "cuda-graphs"))
    return ways


def _peak(times: Times, precision: str, device: torch.device) -> float:
    return 2 * matmul_side(device) ** 3 / min(times[f"matmul[{precision}]"])


def _fastest(times: Times, step: str, precision: str) -> str:
    """The fastest of the plain step, the compiled one and the one with CUDA graphs."""
    ways: tuple[CompiledAs, ...] = (False, True, "cuda-graphs")
    names = [
        name for name in (f"{step}[{variant(precision, way)}]" for way in ways) if name in times
    ]
    if not names:
        raise KeyError(step)
    return min(names, key=lambda name: statistics.median(times[name]))


def _ratios(
    times: Times,
    waiting: dict[str, list[float]],
    facts: dict[str, Any],
    work: Work,
    device: torch.device,
    main: str,
) -> dict[str, Any]:
    precisions = facts["settings"]["precisions"]
    first = precisions[0]

    def of(name: str, per_epoch: str | None = None) -> list[float]:
        return cost(times, name, per_epoch, STEPS_PER_EPOCH)

    ours_end_to_end, ours_step = f"sdclr_end_to_end[{main}]", f"sdclr_step[{main}]"

    def end_to_end() -> list[float]:
        return of(ours_end_to_end, "mask_refresh")

    def waits(name: str) -> list[float]:
        return waiting[name][-len(times[name]) :]

    def utilisation() -> list[float]:
        work_rate = facts["flops_per_step"] / facts["matmul_flops_per_second"][first]
        return [work_rate / seconds for seconds in of(ours_end_to_end)]

    def fastest(step: str, precision: str) -> list[float]:
        refresh = "mask_refresh" if step == "sdclr_step" else None
        return of(_fastest(times, step, precision), refresh)

    def bare(precision: str) -> list[float]:
        return of(_fastest(times, "sdclr_step", precision))

    def graphs(name: str) -> list[float]:
        plain, recorded = (f"sdclr_{name}[{variant(first, way)}]" for way in (True, "cuda-graphs"))
        return round_ratios(of(plain), of(recorded))

    wanted: dict[str, Callable[[], list[float]]] = {
        "end_to_end_over_reference": lambda: round_ratios(
            of("reference_end_to_end", "host_sort"), end_to_end()
        ),
        "end_to_end_over_reference_compute": lambda: round_ratios(
            of("reference_step"), end_to_end()
        ),
        "reference_step_over_sdclr_step": lambda: round_ratios(of("reference_step"), of(ours_step)),
        "views_over_pil": lambda: round_ratios(of("pil_views"), of("views")),
        "host_sort_over_mask_refresh": lambda: round_ratios(of("host_sort"), of("mask_refresh")),
        "data_wait_share": lambda: waits(ours_end_to_end),
        "reference_data_wait_share": lambda: waits("reference_end_to_end"),
        "views_share_of_step": lambda: [
            1 - r for r in round_ratios(of(ours_step), of(f"sdclr_with_views[{main}]"))
        ],
        "utilisation": utilisation,
    }

    def over_simclr(step: str, precision: str) -> list[float]:
        ours = fastest(step, precision) if step == "sdclr_step" else of(f"{step}[{precision}]")
        return round_ratios(ours, fastest("simclr_step", precision))

    for precision in precisions:
        key = "sdclr_step_over_simclr_step" + ("" if precision == first else f"_{precision}")
        wanted[key] = partial(over_simclr, "sdclr_step", precision)
    wanted["lightly_step_over_simclr_step"] = partial(over_simclr, "lightly_step", first)
    if {"fp32", "bf16"} <= set(precisions):
        wanted["bf16_step_speedup"] = lambda: round_ratios(bare("fp32"), bare("bf16"))
        wanted["bf16_step_over_reference_step"] = lambda: round_ratios(
            of("reference_step"), bare("bf16")
        )
        wanted["bf16_matmul_over_fp32_matmul"] = lambda: round_ratios(
            of("matmul[fp32]"), of("matmul[bf16]")
        )
    wanted["cuda_graphs_step_speedup"] = lambda: graphs("step")
    wanted["cuda_graphs_end_to_end_speedup"] = lambda: graphs("end_to_end")
    wanted["views_over_kornia"] = lambda: round_ratios(of("kornia_views"), of("views"))
    ratios: dict[str, list[float]] = {}
    for key, of_rounds in wanted.items():
        # one side is not there: not installed, left out, or not of this run
        with contextlib.suppress(KeyError):
            ratios[key] = of_rounds()
    if work.size == 32:
        ratios |= (
            {"views_over_pil_32px": ratios["views_over_pil"]} if "views_over_pil" in ratios else {}
        )
    if (work.backbone, work.size) == ("resnet50", 224) and ours_end_to_end in times:
        views = 2 * work.batch
        ratios["resnet50_224px_views_per_second"] = [
            views / seconds for seconds in of(ours_end_to_end)
        ]
    reasons = {} if len(precisions) > 1 else {"bf16_step_over_reference_step": "no bf16 here"}
    if any(words.startswith("left out") for words in facts["remarks"].values()):
        reasons = dict.fromkeys(MEANINGS, "left out: no time") | reasons
    bounds = judged(ratios, "cuda" if device.type == "cuda" else "cpu", work, reasons)
    return {
        "ratios": {key: statistics.median(values) for key, values in ratios.items()},
        "ratio_ranges": {key: [min(values), max(values)] for key, values in ratios.items()},
        "ratio_meanings": {key: MEANINGS[_plain(key)] for key in ratios},
        "bounds": [bound.to_dict() for bound in bounds],
    }


def _plain(key: str) -> str:
    return key if key in MEANINGS else key.rpartition("_")[0]
