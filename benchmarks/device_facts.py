"""What a CUDA device does with the parts of a step, to set against estimates: written as it is measured.

    python benchmarks/device_facts.py --json FILE [--only steps ...] [--minutes 4] [--small]

selection  the k-th smallest of a network's magnitudes by kthvalue, topk and sort
views      drawing parameters, views of 32 px, colours and crops of 224 px: device ms, host ms, launches
steps      SimCLR and SDCLR, ResNet-18 at 32 px: eager, cudnn.benchmark, bf16 compiled, with CUDA graphs
branches   the steps of ResNet-18 with CUDA graphs in turns: SimCLR with one pass for both views and with one for each,
           and SDCLR; as they are, with inductor's combo kernels, which put small independent kernels into one launch,
           and where cuDNN also tries which of its kernels is fastest (cudnn.benchmark)
profile    a step of both methods, with CUDA graphs and not compiled: its kernels, the thirty longest, how long the
           device has one
narrow     the same steps, not compiled, of a narrow ResNet-10 at 32 and 16 px, which the host may hold up
large      ResNet-50 and ViT-S at 224 px, not compiled, 256 images a step

A subject that fails says so and leaves the rest standing; one that would begin after ``--minutes`` is left out by name.
``--small`` rehearses everything on a CPU with tiny sizes; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench.contestants import IN_WORDS, Workload
from bench.rounds import summary
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sdclr.backbones import BackboneConfig
from sdclr.backbones.image_sizes import fitted_to
from sdclr.batch import Views
from sdclr.compute.compiling import CompiledAs
from sdclr.compute.device import describe_device
from sdclr.compute.device_choices import Precision
from sdclr.data import ViewsConfig, make_views
from sdclr.data.views.augment import colour_views, coloured, resized_crop
from sdclr.data.views.parameters import ViewParameters, draw_two_views
from sdclr.jobs.pretrain.step import train_step
from sdclr.jobs.pretrain.training import TrainingState

Facts = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    device: torch.device
    magnitudes: tuple[int, ...] = (11_157_504, 23_445_504)
    """Convolution weights of ResNet-18 and ResNet-50."""
    batch: int = 512
    large_batch: int = 256
    large_side: int = 224
    backbone: str = "resnet18"
    large: tuple[str, ...] = ("resnet50", "timm:vit_small_patch16_224")
    steps: int = 30
    turns: int = 5


SMALL = Size(torch.device("cpu"), (10_000,), 8, 4, 32, "resnet10", ("resnet10",), steps=2, turns=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --small rehearses on a CPU.")
    size = SMALL if arguments.small else Size(torch.device("cuda"))
    begun = time.perf_counter()
    facts: Facts = {
        "kind": "device facts",
        "date": datetime.date.today().isoformat(),
        "hardware": describe_device(size.device),
        "host": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "small": arguments.small,
        "subjects": {},
    }
    for name in arguments.only:
        spent = time.perf_counter() - begun
        if spent > 60 * arguments.minutes:
            facts["subjects"][name] = {"left out": f"{arguments.minutes:g} minutes are over"}
        else:
            _measure(name, size, facts, arguments.json)
        print(f"{name}: {time.perf_counter() - begun - spent:.1f} s", flush=True)
    print(json.dumps(facts["subjects"], indent=1))


def _measure(name: str, size: Size, facts: Facts, file: Path) -> None:
    """One subject, written point by point."""
    found: Facts = {}
    facts["subjects"][name] = found
    try:
        for point, value in SUBJECTS[name](size):
            found[point] = value
            file.write_text(json.dumps(facts, indent=1) + "\n")
    except Exception:  # what it is, is what one wants to know
        found["failed"] = traceback.format_exc().splitlines()[-12:]
        file.write_text(json.dumps(facts, indent=1) + "\n")


# ---- timing


def milliseconds(work: Callable[[], object], size: Size, steps: int | None = None) -> list[float]:
    """Device ms of ``work``, one number a turn: the mean over ``steps`` in a row, between events."""
    steps = steps or size.steps
    for _ in range(3):
        work()
    found = []
    for _ in range(size.turns):
        begin, end = _mark(size), _mark(size)
        begin.record()
        for _ in range(steps):
            work()
        end.record()
        found.append(end.since(begin) / steps)
    return found


class _Clock:
    """A time mark on the host, with the methods of a CUDA event that are needed here."""

    def record(self) -> None:
        self.time = time.perf_counter()

    def since(self, other: Any) -> float:
        return 1e3 * (self.time - other.time)


class _Event:
    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)

    def record(self) -> None:
        self.event.record()

    def since(self, other: Any) -> float:
        self.event.synchronize()
        return float(other.event.elapsed_time(self.event))


def _mark(size: Size) -> Any:
    return _Event() if size.device.type == "cuda" else _Clock()


def host_milliseconds(work: Callable[[], object], size: Size) -> float:
    """ms of the host to queue ``work`` once, on an idle device: the median of ten."""
    found = []
    for _ in range(10):
        _wait(size)
        begun = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - begun))
    _wait(size)
    return statistics.median(found)


def _wait(size: Size) -> None:
    if size.device.type == "cuda":
        torch.cuda.synchronize()


def kernels(work: Callable[[], object], size: Size) -> Facts:
    """Launches of ``work``, its thirty longest kernels, and for how much of its time the device had none."""
    cuda = size.device.type == "cuda"
    work()
    _wait(size)
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    with profile(activities=list({ProfilerActivity.CPU, activity})) as taken:
        work()
        _wait(size)
    if not cuda:
        return {"launches": len(taken.events())}
    on_device = [event for event in taken.events() if event.device_type == DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in on_device)
    busy, reached = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    by_name: dict[str, tuple[int, float]] = {}
    for event in on_device:
        count, total = by_name.get(event.name, (0, 0.0))
        by_name[event.name] = count + 1, total + event.time_range.elapsed_us()
    longest = sorted(by_name.items(), key=lambda item: -item[1][1])[:30]
    return {
        "launches": len(on_device),
        "busy_ms": busy / 1e3,
        "span_ms": (reached - spans[0][0]) / 1e3,
        "longest": [
            {"kernel": name[:110], "times": count, "ms": total / 1e3}
            for name, (count, total) in longest
        ],
    }


# ---- subjects: each yields a name and what was measured


def selection(size: Size) -> Iterator[tuple[str, Any]]:
    for n in size.magnitudes:
        values = torch.rand(n, device=size.device)
        k = int(0.9 * n)
        ways: dict[str, Callable[[], Tensor]] = {
            "kthvalue": partial(_kthvalue, values, k),
            "topk": partial(_topk, values, k),
            "sort": partial(_sort, values, k),
        }
        answers = {name: float(way()) for name, way in ways.items()}
        timed = {name: summary(milliseconds(way, size, 3)) for name, way in ways.items()}
        yield f"{n} numbers", {"equal": len(set(answers.values())) == 1, "ms": timed}


def _kthvalue(values: Tensor, k: int) -> Tensor:
    return values.kthvalue(k + 1).values


def _topk(values: Tensor, k: int) -> Tensor:
    return values.topk(len(values) - k, sorted=False).values.min()


def _sort(values: Tensor, k: int) -> Tensor:
    return values.sort().values[k].clone()


def views(size: Size) -> Iterator[tuple[str, Any]]:
    device = size.device
    spec = replace(ViewsConfig(size=32).spec(), compile_views=True)
    index = torch.arange(size.batch, device=device)
    small = torch.randint(0, 256, (size.batch, 3, 32, 32), dtype=torch.uint8, device=device)

    def draw() -> ViewParameters:
        return draw_two_views(spec, index, 32, 32, seed=0, epoch=1)

    def make() -> Views:
        return make_views(small, index, spec, seed=0, epoch=1)

    small_works: dict[str, Callable[[], object]] = {"drawing": draw, "views of 32 px": make}
    for name, work in small_works.items():
        yield name, _cost(work, size)
    side = size.large_side
    spec = replace(ViewsConfig(size=side).spec(), compile_views=True)
    index = torch.arange(2 * size.large_batch, device=device)
    drawn = draw_two_views(spec, index[: size.large_batch], side, side, seed=0, epoch=1)
    large = torch.rand(2 * size.large_batch, 3, side, side, device=device)
    works: dict[str, Callable[[], object]] = {
        "colours, eager": lambda: colour_views(large.clone(), drawn, spec),
        "colours": lambda: coloured(large.clone(), drawn, spec),
        "crops, eager": lambda: resized_crop(large, drawn.box, drawn.flip, side),
    }
    for name, work in works.items():
        yield f"{name}, {side} px, {len(large)} views", _cost(work, size, steps=5)


def _cost(work: Callable[[], object], size: Size, steps: int | None = None) -> Facts:
    begun = time.perf_counter()
    work()
    _wait(size)
    return {
        "first_s": time.perf_counter() - begun,
        "ms": summary(milliseconds(work, size, steps)),
        "host_ms": host_milliseconds(work, size),
        "launches": kernels(work, size)["launches"],
    }


def steps(size: Size) -> Iterator[tuple[str, Any]]:
    work = workload_of(size.backbone, 64, 32, size.batch, size)
    yield from _ways(work, size, "bf16", compiled=(True, "cuda-graphs"))
    yield from _ways(work, size, "fp32")


def narrow(size: Size) -> Iterator[tuple[str, Any]]:
    for side in (32, 16):
        for batch in (size.batch, size.batch // 4):
            work = workload_of("resnet10", 16, side, batch, size)
            for name, value in _ways(work, size, "bf16"):
                yield f"{side} px, batch {batch}: {name}", value


def large(size: Size) -> Iterator[tuple[str, Any]]:
    for backbone in size.large:
        work = workload_of(backbone, 64, size.large_side, size.large_batch, size)
        brief = Size(size.device, steps=5, turns=3)
        for name, value in _ways(work, brief, "bf16"):
            yield f"{backbone}: {name}", value


def profiles(size: Size) -> Iterator[tuple[str, Any]]:
    work = workload_of(size.backbone, 64, 32, size.batch, size)
    # first what `compile=auto` takes there; its kernels are those of the compiled step
    ways: tuple[CompiledAs, ...] = ("cuda-graphs" if size.device.type == "cuda" else True, False)
    for how in ways:
        for method in ("simclr", "sdclr"):
            step = ready_step(work, method, "bf16", how)
            for _ in range(3):  # compiled, recorded, replayed
                step()
            yield f"{method}, {IN_WORDS[how]}", kernels(step, size)


def branches(size: Size) -> Iterator[tuple[str, Any]]:
    from torch._inductor import config as inductor  # here: slow to import

    work = workload_of(size.backbone, 64, 32, size.batch, size)
    how: CompiledAs = "cuda-graphs" if size.device.type == "cuda" else True
    base = "simclr, one pass"
    methods: dict[str, Facts] = {
        base: {"method": "simclr"},
        "simclr, a pass for each view": {"method": "simclr", "passes": "separate"},
        "sdclr": {"method": "sdclr"},
    }
    works: dict[str, Callable[[], None]] = {}
    found: dict[str, Facts] = {}
    for words, combo, tried in (
        ("", False, False),
        (", combo kernels", True, False),
        (", combo kernels, cudnn.benchmark", True, True),
    ):
        torch.backends.cudnn.benchmark = tried  # cuDNN chooses when a step is warmed up
        with inductor.patch(combo_kernels=combo):  # what is compiled inside
            for method, settings in methods.items():
                name = method + words
                works[name] = ready_step(work, precision="bf16", how=how, **settings)
                found[name] = _first(works[name], size)
    torch.backends.cudnn.benchmark = False
    turns = _in_turns(works, size)
    for name, step in works.items():
        ratios = [ours / one for ours, one in zip(turns[name], turns[base], strict=True)]
        yield (
            name,
            found[name]
            | {"ms": summary(turns[name]), "over_one_pass": summary(ratios)}
            | kernels(step, size),
        )


def _ways(
    work: Workload, size: Size, precision: Precision, compiled: tuple[CompiledAs, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Both methods in turns: eager, with cudnn.benchmark, and in the ways of ``compiled``."""
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        how = "eager, cudnn.benchmark" if benchmark else "eager"
        yield f"{precision}, {how}", _pair(work, size, precision, False)
    torch.backends.cudnn.benchmark = False
    for way in compiled if size.device.type == "cuda" else ():
        yield f"{precision}, {IN_WORDS[way]}", _pair(work, size, precision, way)


def _pair(work: Workload, size: Size, precision: Precision, how: CompiledAs) -> Facts:
    """Seconds to the first step, ms of a step in turns, host ms, peak memory and views a second, of both methods."""
    works = {method: ready_step(work, method, precision, how) for method in ("simclr", "sdclr")}
    found = {method: _first(step, size) for method, step in works.items()}
    turns = _in_turns(works, size)
    for method, step in works.items():
        median = statistics.median(turns[method])
        found[method] |= {
            "ms": summary(turns[method]),
            "host_ms": host_milliseconds(step, size),
            "views_per_second": 2e3 * work.batch / median,
        }
        if size.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step()
            found[method]["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    ratios = [ours / base for ours, base in zip(turns["sdclr"], turns["simclr"], strict=True)]
    return found | {"sdclr_over_simclr": summary(ratios)}


def _first(step: Callable[[], object], size: Size) -> Facts:
    """Seconds to the end of the first step; three more record what is recorded."""
    begun = time.perf_counter()
    step()
    _wait(size)
    seconds = time.perf_counter() - begun
    for _ in range(3):
        step()
    return {"first_s": seconds}


def _in_turns(works: Mapping[str, Callable[[], object]], size: Size) -> dict[str, list[float]]:
    """Device ms of a step, one number a turn."""
    turns: dict[str, list[float]] = {name: [] for name in works}
    brief = Size(size.device, steps=size.steps, turns=1)
    for _ in range(size.turns):
        for name, step in works.items():
            turns[name] += milliseconds(step, brief)
    return turns


def ready_step(
    work: Workload, method: str, precision: Precision, how: CompiledAs, **settings: Any
) -> Callable[[], None]:
    training = work.training(method, precision, how, **settings)
    a, b = torch.rand(2, work.batch, 3, work.size, work.size, device=work.device)
    a, b = (view.contiguous(memory_format=training.memory_format) for view in (a, b))
    ready = Views(a, b, torch.arange(work.batch, device=work.device))
    return partial(train_step, training, TrainingState.begin(work.device), ready)


def workload_of(name: str, width: int, side: int, batch: int, size: Size) -> Workload:
    stem = "large" if side >= 128 else "small"
    ours: Facts = {} if ":" in name else {"width": width, "stem": stem}
    folder = Path(tempfile.mkdtemp())
    backbone = fitted_to(BackboneConfig(name=name, **ours), side)
    work = Workload(backbone, side, batch, size.device, folder / "images.npz")
    pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    work.write(pixels)
    return work


SUBJECTS: Mapping[str, Callable[[Size], Iterator[tuple[str, Any]]]] = {
    "selection": selection,
    "views": views,
    "steps": steps,
    "branches": branches,
    "profile": profiles,
    "narrow": narrow,
    "large": large,
}


if __name__ == "__main__":
    main()
