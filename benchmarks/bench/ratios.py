"""What the times of a bench say: every ratio, round by round, and whether the promised bounds are kept."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bench.bounds import MEANINGS, Work, judged
from bench.contestants import STEPS_PER_EPOCH, variant
from bench.machine import matmul_side
from bench.rounds import Times, cost, round_ratios
from sdclr.compute.compiling import CompiledAs

Ratio = Callable[[], list[float]]
"""One number a round; KeyError where a side was not measured: not installed, left out, or not of this bench."""


@dataclass(frozen=True)
class Measured:
    """The times of one bench and what they are of."""

    times: Times
    """Seconds, round by round, by name."""
    waiting: dict[str, list[float]]
    """Shares of the end-to-end steps that waited for data."""
    precisions: list[Any]
    """The first is the main one."""
    main: str
    """The variant that also runs end to end."""
    work: Work
    device: torch.device
    flops_per_step: float

    def of(self, name: str, per_epoch: str | None = None) -> list[float]:
        """Seconds of one call; ``per_epoch``: with this one's share of a step, done once an epoch."""
        return cost(self.times, name, per_epoch, STEPS_PER_EPOCH)

    def over(self, above: str, below: str) -> list[float]:
        """Seconds of one over seconds of the other."""
        return round_ratios(self.of(above), self.of(below))

    def fastest(self, step: str, precision: str, per_epoch: str | None = None) -> list[float]:
        """The fastest of the plain step, the compiled one and the one with CUDA graphs."""
        ways: tuple[CompiledAs, ...] = (False, True, "cuda-graphs")
        names = [f"{step}[{variant(precision, way)}]" for way in ways]
        names = [name for name in names if name in self.times]
        if not names:
            raise KeyError(step)
        best = min(names, key=lambda name: statistics.median(self.times[name]))
        return self.of(best, per_epoch)

    def end_to_end(self) -> list[float]:
        return self.of(f"sdclr_end_to_end[{self.main}]", "mask_refresh")

    def waits(self, name: str) -> list[float]:
        """Of the rounds alone: warming up is measured, too."""
        return self.waiting[name][-len(self.times[name]) :]

    def peak(self, precision: str) -> float:
        """FLOP a second of the largest product."""
        return 2 * matmul_side(self.device) ** 3 / min(self.times[f"matmul[{precision}]"])

    def utilisation(self) -> list[float]:
        work_rate = self.flops_per_step / self.peak(self.precisions[0])
        return [work_rate / seconds for seconds in self.of(f"sdclr_end_to_end[{self.main}]")]

    def views_share(self) -> list[float]:
        step, with_views = f"sdclr_step[{self.main}]", f"sdclr_with_views[{self.main}]"
        return [1 - ratio for ratio in self.over(step, with_views)]

    def over_simclr(self, precision: str) -> list[float]:
        """SDCLR's step, its refresh included, over SimCLR's."""
        on_cuda = self.device.type == "cuda"  # there it is timed with the steps
        ours = self.fastest("sdclr_step", precision, None if on_cuda else "mask_refresh")
        return round_ratios(ours, self.fastest("simclr_step", precision))

    def graphs(self, name: str) -> list[float]:
        """What CUDA graphs give over compiled code."""
        first = self.precisions[0]
        plain, recorded = (f"sdclr_{name}[{variant(first, way)}]" for way in (True, "cuda-graphs"))
        return self.over(plain, recorded)

    def views_per_second(self) -> list[float]:
        return [2 * self.work.batch / one for one in self.of(f"sdclr_end_to_end[{self.main}]")]


def ratios_of(measured: Measured, remarks: dict[str, str]) -> dict[str, Any]:
    """Medians, ranges and meanings of the ratios that could be measured, and the bounds judged by them."""
    ratios: dict[str, list[float]] = {}
    for name, ratio in _wanted(measured).items():
        with contextlib.suppress(KeyError):
            ratios[name] = ratio()
    reasons = {}
    if len(measured.precisions) == 1:
        reasons = {"bf16_step_over_reference_step": "no bf16 here"}
    if any(words.startswith("left out") for words in remarks.values()):
        reasons = dict.fromkeys(MEANINGS, "left out: no time") | reasons
    on_cuda = measured.device.type == "cuda"
    bounds = judged(ratios, "cuda" if on_cuda else "cpu", measured.work, reasons)
    return {
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_ranges": {name: [min(values), max(values)] for name, values in ratios.items()},
        "ratio_meanings": {name: MEANINGS[_plain(name)] for name in ratios},
        "bounds": [bound.to_dict() for bound in bounds],
    }


def _wanted(measured: Measured) -> dict[str, Ratio]:
    """Every ratio by name, in the order of the table; which of them were measured shows when they are asked for."""
    over, work = measured.over, measured.work
    wanted = _over_reference(measured) | _of_a_step(measured) | _of_precisions(measured)
    wanted["cuda_graphs_step_speedup"] = lambda: measured.graphs("step")
    wanted["cuda_graphs_end_to_end_speedup"] = lambda: measured.graphs("end_to_end")
    wanted["views_over_kornia"] = lambda: over("kornia_views", "views")
    if work.size == 32:
        wanted["views_over_pil_32px"] = lambda: over("pil_views", "views")
    if (work.backbone, work.size) == ("resnet50", 224):
        wanted["resnet50_224px_views_per_second"] = measured.views_per_second
    return wanted


def _over_reference(measured: Measured) -> dict[str, Ratio]:
    """The way of 2021, whole or in parts, over ours."""
    of, over, end_to_end = measured.of, measured.over, measured.end_to_end
    return {
        "end_to_end_over_reference": lambda: round_ratios(
            of("reference_end_to_end", "host_sort"), end_to_end()
        ),
        "end_to_end_over_reference_compute": lambda: round_ratios(
            of("reference_step"), end_to_end()
        ),
        "reference_step_over_sdclr_step": lambda: over(
            "reference_step", f"sdclr_step[{measured.main}]"
        ),
        "views_over_pil": lambda: over("pil_views", "views"),
        "host_sort_over_mask_refresh": lambda: over("host_sort", "mask_refresh"),
    }


def _of_a_step(measured: Measured) -> dict[str, Ratio]:
    """Shares of a step."""
    return {
        "data_wait_share": lambda: measured.waits(f"sdclr_end_to_end[{measured.main}]"),
        "reference_data_wait_share": lambda: measured.waits("reference_end_to_end"),
        "views_share_of_step": measured.views_share,
        "utilisation": measured.utilisation,
    }


def _of_precisions(measured: Measured) -> dict[str, Ratio]:
    """SDCLR over SimCLR in each precision, and bf16 over fp32."""
    of, over, fastest = measured.of, measured.over, measured.fastest
    first, *others = measured.precisions
    wanted: dict[str, Ratio] = {"sdclr_step_over_simclr_step": partial(measured.over_simclr, first)}
    for other in others:
        name = f"sdclr_step_over_simclr_step_{other}"
        wanted[name] = partial(measured.over_simclr, other)
    wanted["lightly_step_over_simclr_step"] = lambda: round_ratios(
        of(f"lightly_step[{first}]"), fastest("simclr_step", first)
    )
    if {"fp32", "bf16"} <= set(measured.precisions):
        wanted["bf16_step_speedup"] = lambda: round_ratios(
            fastest("sdclr_step", "fp32"), fastest("sdclr_step", "bf16")
        )
        wanted["bf16_step_over_reference_step"] = lambda: round_ratios(
            of("reference_step"), fastest("sdclr_step", "bf16")
        )
        wanted["bf16_matmul_over_fp32_matmul"] = lambda: over("matmul[fp32]", "matmul[bf16]")
    return wanted


def _plain(name: str) -> str:
    return name if name in MEANINGS else name.rpartition("_")[0]
