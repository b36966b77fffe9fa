"""Write the tables of docs/speed.md from the newest results of `make bench`, of each maker's CPUs and of a CUDA device.

    python benchmarks/speed_page.py

Rewrites what stands between the two markers in docs/speed.md; tests/test_speed_page.py holds the page to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.bounds import LARGE, MEANINGS, SMALL, Work
from bench.contestants import is_step
from marked_pages import Markers

ROOT = Path(__file__).parent.parent
MARKERS = Markers("<!-- speed: written by benchmarks/speed_page.py -->", "<!-- /speed -->")


MAKERS = ("Intel", "AMD", "Apple", "NVIDIA")
ALONE = (
    "\nEach step was timed alone here, on an idle device, and is charged what the host takes to queue its "
    "first kernels; only `end_to_end` is\nof steps in a row. Since then the bench times an "
    "epoch's steps in a row."
)
"""What the first results of a device suffer from."""


def newest(kind: str, work: Work) -> list[dict[str, Any]]:
    """The last results of ``work`` on ``CPU`` or ``CUDA`` devices of each maker, the last first."""
    files = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (ROOT / "benchmarks" / "results").glob("*.json")
    ]
    fitting = [f for f in files if f.get("kind") == "bench" and f["hardware"].startswith(kind)]
    fitting = [f for f in fitting if f["settings"]["work"] == list(work)]
    fitting.sort(key=lambda facts: facts["created"])
    by_maker = {_maker(facts["hardware"]): facts for facts in fitting}  # the last of each
    return sorted(by_maker.values(), key=lambda facts: facts["created"], reverse=True)


def _maker(hardware: str) -> str:
    """``Intel`` of ``CPU: 13th Gen Intel(R) Core(TM), 2 threads``."""
    known = (maker for maker in MAKERS if maker in hardware)
    return next(known, hardware.split()[1].partition("(")[0])


def section() -> str:
    parts = []
    for cpu in newest("CPU", SMALL["cpu"]):
        parts += [_conditions(cpu), _promises(cpu, "cpu"), _steps(cpu)]
    cudas = newest("CUDA", SMALL["cuda"]) + newest("CUDA", LARGE)
    for cuda in cudas:
        parts += [_conditions(cuda), _promises(cuda, "cuda"), _steps(cuda)]
    if not cudas:
        parts.append("On CUDA: no results file yet.")
    return "\n\n".join(parts)


def rewritten(page: str) -> str:
    return MARKERS.rewritten(page, section())


def _conditions(facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    alone = facts["hardware"].startswith("CUDA") and facts.get("steps_in_a_row", 1) == 1
    return (
        f"{facts['hardware']}, torch {facts['torch']}, {facts['date']}: {settings['backbone']} of width "
        f"{settings['width']} at {settings['size']} px, batch {settings['batch']},\nmedian and range of "
        f"n = {facts['n']} interleaved rounds in {facts['elapsed_seconds'] / 60:.1f} minutes; load before the run "
        f"{facts['load_before']:.1f}."
    ) + (ALONE if alone else "")


def _promises(facts: dict[str, Any], device: str) -> str:
    rows = ["| | measured | range | held to | |", "|---|---|---|---|---|"]
    for bound in facts["bounds"]:
        if bound["device"] != device or bound["key"] not in MEANINGS:  # withdrawn since
            continue
        limit = f"{bound['direction']} {bound['limit']:g}".replace("<=", "at most").replace(
            ">=", "at least"
        )
        if bound["value"] is None:
            measured, spread, verdict = bound["why"], "", ""
        else:
            low, high = facts["ratio_ranges"][bound["key"]]
            measured, spread = f"{bound['value']:.2f}", f"{low:.2f} .. {high:.2f}"
            verdict = "met" if bound["met"] else "not met"
        rows.append(f"| {bound['meaning']} | {measured} | {spread} | {limit} | {verdict} |")
    cuda = ["cuda_graphs_step_speedup", "cuda_graphs_end_to_end_speedup"]
    others = cuda if device == "cuda" else ["bf16_matmul_over_fp32_matmul"]
    ratios = facts["ratios"]
    rows += [
        f"| {facts['ratio_meanings'][key]} | {ratios[key]:.2f} | | | |"
        for key in others
        if key in ratios
    ]
    return "\n".join(rows)


def _steps(facts: dict[str, Any]) -> str:
    rows = ["| | seconds | views/s | of the rate of a square matrix product |", "|---|---|---|---|"]
    peaks, views = facts["matmul_flops_per_second"], 2 * facts["settings"]["batch"]
    for name, found in facts["seconds"].items():
        if not is_step(name):
            continue
        precision = name.partition("[")[2].rstrip("]").partition(",")[0] or "fp32"
        share = (
            f"{facts['flops_per_step'] / found['median'] / peaks[precision]:.0%}"
            if precision in peaks
            else ""
        )
        rows.append(
            f"| {name} | {found['median']:.3g} | {views / found['median']:,.0f} | {share} |"
        )
    missing = "".join(f" {name}: not installed." for name in facts["not_installed"])
    return "\n".join(rows) + (f"\n\n{missing.strip()}" if missing else "")


if __name__ == "__main__":
    path = ROOT / "docs" / "speed.md"
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
