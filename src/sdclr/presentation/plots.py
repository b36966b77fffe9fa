"""Figures as inline SVG: accuracy by class frequency, training loss, mask churn.

A arms, C classes, E epochs. Every function returns one ``<svg>`` element without an XML header, the same bytes for the
same input. Ink is ``currentColor`` and the background transparent, so a figure follows the page into dark mode; the
arms' colours are Okabe and Ito's, told apart under every common colour blindness. No global pyplot state is touched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdclr.compute.process_state import silenced_warnings
from sdclr.presentation.report import ArmCurves, ClassBars
from sdclr.safe_text import one_line

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_MAX_BARS = 240  # bars of fewer than two pixels cannot be told apart: draw dots
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "sdclr",
    "text.parse_math": False,  # a "$" in a label is a dollar
    "font.family": ["sans-serif"],
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """The colour an arm has in every figure of a report, also in those that not every arm is part of."""
    return {arm: PALETTE[number % len(PALETTE)] for number, arm in enumerate(arms)}


def class_bars_svg(bars: ClassBars, colours: Mapping[str, str], name: str) -> str:
    """Accuracy of each class rank, head to tail, the arms side by side; whiskers are the std over splits.

    ``name`` prefixes every id, so that several figures can share a page.
    """
    with rc_context(_STYLE):
        figure, axes = _canvas(3.6)
        ranks, width = np.arange(1, len(bars.counts) + 1), 0.8 / len(bars.arms)
        for number, arm in enumerate(bars.arms):
            x = ranks - 0.4 + (number + 0.5) * width
            heights = 100 * np.array([rank.mean for rank in arm.ranks])
            whiskers = 100 * np.array([rank.std for rank in arm.ranks])
            colour = colours[arm.arm]
            if len(ranks) * len(bars.arms) > _MAX_BARS:
                axes.plot(x, heights, ".", markersize=3, color=colour, label=_in_legend(arm.arm))
                continue
            axes.bar(x, heights, 0.9 * width, color=colour, label=_in_legend(arm.arm))
            if max(rank.n for rank in arm.ranks) > 1:
                axes.errorbar(
                    x, heights, whiskers, fmt="none", ecolor=_INK, elinewidth=0.9, capsize=1.5
                )
        _shade_groups(axes, bars.groups)
        axes.axhline(
            100 * bars.chance, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label="chance"
        )
        _label_ranks(axes, bars.counts)
        axes.set(ylim=(0, 109), yticks=range(0, 101, 20), ylabel="Accuracy (%)")
        _legend(axes, figure)
        return _svg(figure, name)


def curves_svg(
    arms: Sequence[ArmCurves], colours: Mapping[str, str], ylabel: str, name: str
) -> str:
    """A quantity over the epochs: a thin line for each run, a thick one for the mean of each arm's runs."""
    with rc_context(_STYLE):
        figure, axes = _canvas(3.0)
        for arm in arms:
            colour = colours[arm.arm]
            if len(arm.runs) > 1:
                for run in arm.runs:
                    axes.plot(*zip(*run, strict=True), color=colour, linewidth=0.7, alpha=0.45)
            mean = _mean_curve(arm.runs)
            marker = "o" if len(mean) < 3 else ""  # one or two epochs make no visible line
            axes.plot(
                *zip(*mean, strict=True),
                color=colour,
                linewidth=2,
                marker=marker,
                label=_in_legend(arm.arm),
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel="Epoch", ylabel=ylabel)
        axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
        _legend(axes, figure)
        return _svg(figure, name)


def _mean_curve(runs: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """The mean over the runs, at the epochs that all of them have."""
    tables = [dict(run) for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return [(epoch, float(np.mean([table[epoch] for table in tables]))) for epoch in shared]


def _canvas(height: float) -> tuple[Figure, Axes]:
    """A figure 9 by ``height`` inches; the page scales it to its own width."""
    figure = Figure(figsize=(9, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _shade_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Tint the spans of many, medium and few, and name them above the bars."""
    start = 1
    for number, (group, members) in enumerate(groupby(groups)):
        end = start + len(list(members))
        axes.axvspan(
            start - 0.5,
            end - 0.5,
            color=_INK,
            alpha=(0.03, 0.07, 0.11)[number % 3],
            linewidth=0,
            zorder=0,
        )
        axes.text(
            (start + end - 1) / 2,
            103,
            group.capitalize(),
            ha="center",
            va="bottom",
            fontweight="bold",
        )
        start = end
    axes.set_xlim(0.5, len(groups) + 0.5)


def _label_ranks(axes: Axes, counts: Sequence[int]) -> None:
    """Label at most 20 ranks: the rank above its training count."""
    step = -(-len(counts) // 20)
    ranks = range(1, len(counts) + 1, step)
    axes.set_xticks(ranks, [f"{rank}\n({counts[rank - 1]:,})" for rank in ranks])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("Class rank by training images (number of images)")


def _in_legend(name: str) -> str:
    """A name as a legend takes it: matplotlib leaves out what begins with an underscore, and cannot show nothing."""
    name = one_line(name)
    return name if name and not name.startswith("_") else f" {name}"


def _legend(axes: Axes, figure: Figure) -> None:
    """Arms, then chance, above the axes; long labels take more rows, and the figure grows by those."""
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1] == "chance"
    )
    handles, labels = zip(*entries, strict=True)
    wrapped = [fill(label, 100) for label in labels]
    columns = min(len(labels), max(1, 110 // (8 + max(map(len, wrapped)))))
    rows = -(-len(labels) // columns) + sum(label.count("\n") for label in wrapped)
    figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))
    axes.legend(
        handles, wrapped, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, frameon=False
    )


def _svg(figure: Figure, name: str) -> str:
    """The figure as one ``<svg>`` element, its ids prefixed with ``name``, no metadata."""
    stream = io.StringIO()
    # the browser has fonts for every script; matplotlib only measures with its own
    with silenced_warnings("Glyph .* missing from"):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
