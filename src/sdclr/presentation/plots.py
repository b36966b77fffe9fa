"""Drawings as figures, inline SVG and PNG: lines, bars by class, intervals, distributions.

A arms, C classes, E epochs. SVG is one ``<svg>`` element without an XML header, the same bytes for the same input.
Ink is ``currentColor`` and the background transparent, so a figure follows the page into dark mode; the arms' colours
are Okabe and Ito's, which are distinguishable under every common colour blindness. No global pyplot state is changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdclr.compute.process_state import silenced_warnings
from sdclr.presentation.drawings import Bars, Dots, Forest, Histogram, Layers, Line, Lines
from sdclr.presentation.report import ArmCurves, ClassBars
from sdclr.safe_text import one_line

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK = "#010203"  # placeholder for the page's text colour until the SVG is written
PRINTED_INK = "#1b2430"
ALARM = "#C2185B"
GROUP_COLOURS = {"many": "#0072B2", "medium": "#E69F00", "few": "#D55E00", "all": "#009E73"}
VERDICT_COLOURS = {"better": "#009E73", "worse": "#D55E00", "open": "#7b8794"}
_STYLES: Any = ("solid", (0, (5, 2)), (0, (1, 1.5)))
_WORD = 0.085
"""Width of the word "Medium", as a share of the width of the axes."""
_AXES_POINTS = 600
"""Width of the axes in points."""
_CHARACTERS = 96
"""How many characters fit below the axes."""
_SHORTEST_NAME = 5
"""A name cut shorter than this is not informative."""
_MAX_BARS = 240  # bars narrower than two pixels are indistinguishable, so dots are drawn
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
    """The colour of an arm in every figure of a report, including those that not every arm is part of."""
    return {arm: PALETTE[number % len(PALETTE)] for number, arm in enumerate(arms)}


def svg_of(drawing: object, name: str, *, small: bool = False) -> str:
    """A drawing as one ``<svg>`` element; ``name`` prefixes every id, so that several figures can share a page."""
    with rc_context(_STYLE):
        return _svg(_drawn(drawing, small), name)


def svg_file(drawing: object, title: str) -> str:
    """The same as a separate file, with its title: dark ink on white."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    white = '<rect width="100%" height="100%" fill="#ffffff"/>'
    with rc_context(_STYLE):
        text = _svg(_titled(_drawn(drawing, False), title), "figure")
    text = text.replace("currentColor", PRINTED_INK)
    begin = text.index(">") + 1
    return f"{head}{text[:begin]}{white}{text[begin:]}\n"


def png_of(drawing: object, title: str, dpi: int = 150) -> bytes:
    """The same as pixels, on white; the same bytes for the same input."""
    with rc_context(_STYLE):
        figure = _titled(_drawn(drawing, False), title)
        figure.patch.set_alpha(1)
        figure.patch.set_facecolor("white")
        stream = io.BytesIO()
        with silenced_warnings("Glyph .* missing from"):
            figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        return stream.getvalue()


def _titled(figure: Figure, title: str) -> Figure:
    figure.set_figheight(figure.get_figheight() + 0.3)
    figure.suptitle(one_line(title), x=0.01, ha="left", fontweight="bold")
    return figure


def _drawn(drawing: object, small: bool) -> Figure:
    return DRAWN[type(drawing)](drawing, small)


def curves_svg(
    arms: Sequence[ArmCurves], colours: Mapping[str, str], ylabel: str, name: str
) -> str:
    """A quantity over the epochs: a thin line for each run, a thick one for the mean of each arm's runs."""
    lines = [Line(arm.arm, colours[arm.arm], arm.runs) for arm in arms]
    return svg_of(Lines(lines, "Epoch", ylabel), name)


def _bars(drawing: Bars, _: bool) -> Figure:
    bars = drawing.bars
    figure, axes = _canvas(3.6)
    ranks, width = np.arange(1, len(bars.counts) + 1), 0.8 / len(bars.arms)
    for number, arm in enumerate(bars.arms):
        x = ranks - 0.4 + (number + 0.5) * width
        heights = 100 * np.array([rank.mean for rank in arm.ranks])
        whiskers = 100 * np.array([rank.std for rank in arm.ranks])
        colour = drawing.colours[arm.arm]
        label = _in_legend(arm.arm, max(rank.n for rank in arm.ranks))
        if len(ranks) * len(bars.arms) > _MAX_BARS:
            axes.plot(x, heights, ".", markersize=3, color=colour, label=label)
            continue
        axes.bar(x, heights, 0.9 * width, color=colour, label=label)
        if max(rank.n for rank in arm.ranks) > 1:
            axes.errorbar(
                x, heights, whiskers, fmt="none", ecolor=_INK, elinewidth=0.9, capsize=1.5
            )
    _shade_groups(axes, bars.groups)
    axes.axhline(
        100 * bars.chance, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label="chance"
    )
    _label_ranks(axes, bars)
    axes.set(ylim=(0, 109), yticks=range(0, 101, 20), ylabel="Accuracy (%)")
    _legend(axes, figure)
    return figure


def _lines(drawing: Lines, small: bool) -> Figure:
    figure, axes = _canvas(2.5, 5.2) if small else _canvas(3.0)
    factor = 100 if drawing.percent else 1
    for line in drawing.lines:
        runs = [[(x, factor * y) for x, y in run] for run in line.runs]
        look: dict[str, Any] = {"color": line.colour, "linestyle": _STYLES[line.style % 3]}
        if len(runs) > 1:
            for run in runs:
                axes.plot(*zip(*run, strict=True), linewidth=0.7, alpha=0.45, **look)
        mean = _mean_curve(runs)
        if not mean:  # no epoch in common
            continue
        marker = "o" if len(mean) < 8 else ""  # with few points, the line alone is not enough
        axes.plot(
            *zip(*mean, strict=True),
            linewidth=2,
            marker=marker,
            markersize=4,
            label=_in_legend(line.label, len(runs)),
            **look,
        )
    if drawing.reference is not None:
        level, word = drawing.reference
        axes.axhline(
            factor * level, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), label=_in_legend(word)
        )
    for number, word in enumerate(dict.fromkeys(word for _, word in drawing.marks)):
        places = [x for x, marked in drawing.marks if marked == word]
        for x in places:
            axes.axvline(x, color=ALARM, linewidth=1.2, linestyle=(0, (1, 1 + number)))
        axes.plot([], [], color=ALARM, linestyle=(0, (1, 1 + number)), label=f"alarm: {word}")
    if drawing.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel=drawing.xlabel, ylabel=drawing.ylabel)
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
    if not (small and len(drawing.lines) == 1 and not drawing.marks):
        _legend(axes, figure, width=62 if small else 110)
    return figure


def _forest(drawing: Forest, _: bool) -> Figure:
    """Rows from top to bottom, groups under their names, numbers at the right; a line at zero."""
    texts: list[tuple[float, str, bool]] = []
    places: list[float] = []
    y = 0.0
    for heading, rows in groupby(drawing.rows, key=lambda row: row.group):
        texts.append((y, heading, True))
        for row in rows:
            y += 1
            texts.append((y, row.label, False))
            places.append(y)
        y += 1.4
    figure, axes = _canvas(0.9 + 0.27 * (y + 0.2))
    for place, row in zip(places, drawing.rows, strict=True):
        colour = VERDICT_COLOURS[row.verdict]
        axes.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=2.2)
        axes.plot([100 * row.mean], [place], "o", color=colour, markersize=6)
        numbers = f"{100 * row.mean:+.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]"
        if row.n is not None:
            numbers += f"  n = {row.n:,}"
        axes.text(
            1.02, place, numbers, transform=axes.get_yaxis_transform(), va="center", fontsize=9
        )
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_ylim(y - 0.6, -0.8)
    axes.set_yticks([place for place, *_ in texts], [one_line(words[1])[:46] for words in texts])
    for tick, words in zip(axes.get_yticklabels(), texts, strict=True):
        tick.set_fontweight("bold" if words[2] else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=_INK, alpha=0.12, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(drawing.xlabel)
    return figure


def _histogram(drawing: Histogram, _: bool) -> Figure:
    figure, axes = _canvas(3.0)
    edges = np.asarray(drawing.edges)
    for group, counts in drawing.counts.items():
        if total := sum(counts):
            heights = 100 * np.asarray(counts) / total
            colour = drawing.colours[group]
            label = f"{group} (n = {total:,})"
            axes.stairs(heights, edges, color=colour, linewidth=2, label=_in_legend(label))
            axes.stairs(heights, edges, color=colour, alpha=0.12, fill=True)
    axes.set(xlabel=drawing.xlabel, ylabel="Images of the group (%)")
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
    _legend(axes, figure)
    return figure


def _layers(drawing: Layers, _: bool) -> Figure:
    """Layers from top to bottom; if there are many, only some are named."""
    names = list(dict.fromkeys(layer[0] for arm in drawing.arms.values() for layer in arm))
    figure, axes = _canvas(min(0.9 + 0.2 * max(len(names), 3), 7.5))
    place = {name: number for number, name in enumerate(names)}
    for arm, layers in drawing.arms.items():
        colour = drawing.colours[arm]
        x, y = [100 * share for _, share, _ in layers], [place[name] for name, _, _ in layers]
        axes.plot(x, y, "o-", color=colour, markersize=4.5, linewidth=1, label=_in_legend(arm))
    step = -(-len(names) // 34)
    axes.set_yticks(range(0, len(names), step), [one_line(name)[-40:] for name in names[::step]])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 102)
    axes.set(xlabel=drawing.xlabel)
    axes.grid(axis="both", color=_INK, alpha=0.12, linewidth=0.8)
    if len(drawing.arms) > 1:
        _legend(axes, figure)
    return figure


def _dots(drawing: Dots, _: bool) -> Figure:
    figure, axes = _canvas(3.2)
    width = 0.5 / max(len(drawing.arms), 1)
    for number, (arm, values) in enumerate(drawing.arms.items()):
        x = np.arange(len(values)) + (number - (len(drawing.arms) - 1) / 2) * width
        means = 100 * np.array([value.mean for value in values])
        spreads = 100 * np.nan_to_num(np.array([value.spread for value in values]))
        axes.errorbar(
            x,
            means,
            spreads,
            fmt="o",
            markersize=6,
            color=drawing.colours[arm],
            capsize=3,
            label=_in_legend(arm, max(value.n for value in values)),
        )
    axes.set_xticks(range(len(drawing.quantities)), [*drawing.quantities])
    axes.set_ylabel(drawing.ylabel)
    axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
    _legend(axes, figure)
    return figure


DRAWN: Mapping[type, Callable[[Any, bool], Figure]] = {
    Lines: _lines,
    Bars: _bars,
    Forest: _forest,
    Histogram: _histogram,
    Layers: _layers,
    Dots: _dots,
}
"""Kind of drawing -> function that draws it; its second argument: whether the figure should be small."""


def _mean_curve(runs: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean over the runs, at the epochs that all of them share."""
    tables = [dict(run) for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return [(epoch, float(np.mean([table[epoch] for table in tables]))) for epoch in shared]


def _canvas(height: float, width: float = 9) -> tuple[Figure, Axes]:
    """A figure with its size in inches; the page scales it to its own width."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _shade_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Tint the spans of many, medium and few, and name them above the bars."""
    start, spans = 1, []
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
        spans.append((group.capitalize(), (start + end - 1) / 2))
        start = end
    axes.set_xlim(0.5, len(groups) + 0.5)
    for (group, _), x in zip(spans, _apart([x for _, x in spans], len(groups)), strict=True):
        axes.text(x, 103, group, ha="center", va="bottom", fontweight="bold")


def _apart(centres: Sequence[float], num_classes: int) -> list[float]:
    """Centres of words in one row, moved so that they neither overlap nor leave the axes."""
    room = num_classes * _WORD
    low, high = 0.5 + room / 2, num_classes + 0.5 - room / 2
    placed: list[float] = []
    for x in centres:
        placed.append(max([x, low, *(one + room for one in placed[-1:])]))
    for number in range(len(placed) - 1, -1, -1):
        after = placed[number + 1] - room if number + 1 < len(placed) else high
        placed[number] = min(placed[number], after)
    return placed


def _label_ranks(axes: Axes, bars: ClassBars) -> None:
    """Label each bar with the name of its class if all of them fit, otherwise some of the ranks; and with the count."""
    num_classes = len(bars.counts)
    room = _CHARACTERS // num_classes - 1
    below = [f"({count:,})" for count in bars.counts]
    longest = max(map(len, below))
    if bars.names and room >= max(_SHORTEST_NAME, longest):
        names = [one_line(name) for name in bars.names]
        above = [name if len(name) <= room else f"{name[: room - 1]}…" for name in names]
        step, words = 1, "Class, by training images (number of images)"
    else:
        above = [str(rank) for rank in range(1, num_classes + 1)]
        step = _step_without_overlap(below)
        words = "Class rank by training images (number of images)"
    ranks = range(1, num_classes + 1, step)
    axes.set_xticks(ranks, [f"{above[rank - 1]}\n{below[rank - 1]}" for rank in ranks])
    # below the 0 of the other axis
    axes.tick_params(axis="x", length=0, pad=8, labelsize=10 if num_classes // step <= 12 else 9)
    axes.set_xlabel(words)


def _step_without_overlap(labels: Sequence[str]) -> int:
    """The smallest step at which labels of 9 points do not overlap, with at most 20 of them."""
    step = -(-len(labels) // 20)
    while step < len(labels):
        widths = [sum(3.5 if one in "(,)" else 5.8 for one in label) for label in labels[::step]]
        pitch = _AXES_POINTS * step / len(labels)
        if all((a + b) / 2 <= pitch for a, b in pairwise(widths)):
            break
        step += 1
    return step


def _in_legend(name: str, n: int = 1) -> str:
    """A name suitable for a legend, with the number of runs or splits if it is a mean.

    matplotlib leaves out names that begin with an underscore, and cannot show an empty one.
    """
    name = one_line(name) + (f" (n = {n})" if n > 1 else "")
    return name if name and not name.startswith("_") else f" {name}"


def _legend(axes: Axes, figure: Figure, width: int = 110) -> None:
    """Arms, then chance, above the axes; long labels take more rows, and the figure grows accordingly.

    ``width``: characters that fit in a row.
    """
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1] == "chance"
    )
    if not entries:
        return
    handles, labels = zip(*entries, strict=True)
    wrapped = [fill(label, width - 10) for label in labels]
    columns = min(len(labels), max(1, width // (8 + max(map(len, wrapped)))))
    rows = -(-len(labels) // columns) + sum(label.count("\n") for label in wrapped)
    figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))
    axes.legend(
        handles, wrapped, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, frameon=False
    )


def _svg(figure: Figure, name: str) -> str:
    """The figure as one ``<svg>`` element, its ids prefixed with ``name``, no metadata."""
    stream = io.StringIO()
    # the browser has fonts for every script; matplotlib only measures with its own fonts
    with silenced_warnings("Glyph .* missing from"):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
