"""The bench's facts as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.contestants import is_step
from sdclr.safe_text import one_line


def show(facts: dict[str, Any], console: Console) -> None:
    settings = facts["settings"]
    words = (
        f"{facts['hardware']}, torch {facts['torch']}, {facts['threads']} threads; {settings['backbone']} width "
        f"{settings['width']}, {settings['size']} px, batch {settings['batch']}; median and range of "
        f"{facts['n']} interleaved rounds"
    )
    console.print(Text(one_line(words)), soft_wrap=True)
    console.print(_steps(facts), _parts(facts), _ratios(facts), _bounds(facts))
    for name in facts["not_installed"]:
        console.print(Text(f"{name}: not installed"))
    for name, words in facts["remarks"].items():
        console.print(Text(one_line(f"{name}: {words}")))


def _steps(facts: dict[str, Any]) -> Table:
    table = _table("A step", "seconds", "range", "views/s", "of product", "peak GB")
    views, peaks = 2 * facts["settings"]["batch"], facts["matmul_flops_per_second"]
    for name, found in facts["seconds"].items():
        if not is_step(name):
            continue
        precision = name.partition("[")[2].rstrip("]").partition(",")[0] or "fp32"
        peak, bytes_ = peaks.get(precision), facts["peak_memory_bytes"].get(name)
        table.add_row(
            Text(name),
            f"{found['median']:.4g}",
            f"{found['low']:.3g}..{found['high']:.3g}",
            f"{views / found['median']:,.0f}",
            f"{facts['flops_per_step'] / found['median'] / peak:.0%}" if peak else "",
            f"{bytes_ / 1e9:.2f}" if bytes_ is not None else "",
        )
    table.caption = "of product: of the rate of a square matrix product, GFLOP/s: " + ", ".join(
        f"{p} {v / 1e9:,.0f}" for p, v in peaks.items()
    )
    table.caption += f"; a step is {facts['flops_per_step'] / 1e9:,.0f} GFLOP"
    return table


def _parts(facts: dict[str, Any]) -> Table:
    table = _table("A part of it", "ms", "range")
    for name, found in facts["seconds"].items():
        if not is_step(name):
            low, high = found["low"] * 1e3, found["high"] * 1e3
            table.add_row(Text(name), f"{found['median'] * 1e3:.4g}", f"{low:.4g} .. {high:.4g}")
    table.caption = "views: two views of four batches in a row, on one thread"
    return table


def _ratios(facts: dict[str, Any]) -> Table:
    table = _table("Ratio", "median", "range", names=False)
    for key, value in facts["ratios"].items():
        low, high = facts["ratio_ranges"][key]
        words = f"{key}\n[dim]{facts['ratio_meanings'][key]}[/dim]"
        table.add_row(words, f"{value:.3g}", f"{low:.3g} .. {high:.3g}")
    return table


def _bounds(facts: dict[str, Any]) -> Table:
    table = _table("Held to", "on", "bound", "goal", "measured", "met", wrapped="measured")
    for bound in facts["bounds"]:
        limit, goal = f"{bound['direction']} {bound['limit']:g}", bound["goal"]
        measured = bound["why"] if bound["value"] is None else f"{bound['value']:.3g}"
        met = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "–"}[bound["met"]]
        table.add_row(
            bound["key"], bound["device"], limit, "" if goal is None else f"{goal:g}", measured, met
        )
    return table


def _table(first: str, *columns: str, names: bool = True, wrapped: str = "") -> Table:
    """``names``: whether the first column holds names, which stay whole; ``wrapped``: a column of words, which wrap."""
    table = Table(
        caption_justify="left",
        highlight=False,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column(first, no_wrap=names)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=column != wrapped)
    return table
