"""The content of figures, as plain numbers: each can be drawn (``plots``), and is also a table.

A new kind of drawing is a class here and a row of ``plots.DRAWN``. Fractions stay fractions in tables.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdclr.mean_std import MeanStd
from sdclr.presentation.report import ClassBars
from sdclr.safe_text import csv_row

Points = Sequence[tuple[float, float]]
Table = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Header and rows."""


@dataclass(frozen=True)
class Line:
    """A quantity of one or several runs: a thin line for each, a thick one for their mean."""

    label: str
    colour: str
    runs: Sequence[Points]
    style: int = 0
    """0 solid, 1 dashed, 2 dotted: identifies the part of an arm."""


@dataclass(frozen=True)
class Lines:
    """Lines over one axis, such as the epochs."""

    lines: Sequence[Line]
    xlabel: str
    ylabel: str
    percent: bool = False
    marks: Sequence[tuple[float, str]] = ()
    """(x, word) of events."""
    reference: tuple[float, str] | None = None
    whole_x: bool = True
    """Whether x is a count, so that ticks are integers."""

    def table(self) -> Table:
        rows = []
        for line in self.lines:
            for number, run in enumerate(line.runs, start=1):
                rows += [[line.label, number, x, y] for x, y in run]
        return ["line", "run", self.xlabel.lower(), "value"], rows

    def description(self) -> str:
        parts = []
        for line in self.lines:
            ends = [run[-1][1] for run in line.runs if run]
            if ends:
                end = sum(ends) / len(ends)
                parts.append(f"{line.label} ends at {_number(end, self.percent)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Bars:
    """Accuracy by class, most training images first."""

    bars: ClassBars
    colours: Mapping[str, str]

    def table(self) -> Table:
        names = self.bars.names or [""] * len(self.bars.counts)
        rows = []
        for arm in self.bars.arms:
            for rank, value in enumerate(arm.ranks):
                place = [rank + 1, names[rank], self.bars.groups[rank], self.bars.counts[rank]]
                rows.append([arm.arm, *place, _known(value.mean), _known(value.spread), value.n])
        header = ["arm", "rank", "class", "group", "training_images", "accuracy", "std", "n"]
        return header, rows

    def description(self) -> str:
        parts = []
        for arm in self.bars.arms:
            known = [rank.mean for rank in arm.ranks if not math.isnan(rank.mean)]
            if known:
                lowest, highest = (_number(one, True) for one in (min(known), max(known)))
                parts.append(f"{arm.arm}: {lowest} to {highest} over {len(known)} classes")
        return "; ".join(parts)


@dataclass(frozen=True)
class Interval:
    """One row of a forest plot; fractions."""

    group: str
    """Rows of one group are shown together under its name."""
    label: str
    mean: float
    low: float
    high: float
    n: int | None
    """None if it was not recorded."""
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """better, worse, or open if the interval contains 0; judged on the printed digits."""
        low, high = (round(100 * end, 2) for end in (self.low, self.high))
        if low <= 0 <= high:
            return "open"
        return "better" if (low > 0) != self.lower_is_better else "worse"


@dataclass(frozen=True)
class Forest:
    """Differences with their intervals, relative to zero."""

    rows: Sequence[Interval]
    xlabel: str

    def table(self) -> Table:
        rows = []
        for one in self.rows:
            n = "" if one.n is None else one.n
            rows.append([one.group, one.label, one.mean, one.low, one.high, n, one.verdict])
        return ["group", "quantity", "difference", "low", "high", "n", "verdict"], rows

    def description(self) -> str:
        return "; ".join(
            f"{row.group}, {row.label}: {100 * row.mean:+.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]"
            for row in self.rows
        )


@dataclass(frozen=True)
class Histogram:
    """A distribution over bins of equal width, a line for each group, as shares of the group."""

    edges: Sequence[float]
    counts: Mapping[str, Sequence[int]]
    colours: Mapping[str, str]
    xlabel: str

    def table(self) -> Table:
        rows = [
            [group, self.edges[n], self.edges[n + 1], count]
            for group, counts in self.counts.items()
            for n, count in enumerate(counts)
        ]
        return ["group", "from", "to", "images"], rows

    def description(self) -> str:
        parts = []
        for group, counts in self.counts.items():
            if total := sum(counts):
                middle = _median_bin(counts, total)
                parts.append(
                    f"{group}: {total:,} images, half of them below {self.edges[middle + 1]:.2f}"
                )
        return "; ".join(parts)


@dataclass(frozen=True)
class Layers:
    """A share for each layer, in the order of the network; a line of dots for each arm."""

    arms: Mapping[str, Sequence[tuple[str, float, int]]]
    """Arm -> (layer, share of its weights that are removed, number of weights)."""
    colours: Mapping[str, str]
    xlabel: str

    def table(self) -> Table:
        rows = [
            [arm, name, share, size]
            for arm, layers in self.arms.items()
            for name, share, size in layers
        ]
        return ["arm", "layer", "sparsity", "weights"], rows

    def description(self) -> str:
        parts = []
        for arm, layers in self.arms.items():
            least, most = (end(layers, key=lambda one: one[1]) for end in (min, max))
            parts.append(
                f"{arm}: {_number(least[1], True)} ({least[0]}) to {_number(most[1], True)} ({most[0]})"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Dots:
    """Mean and spread of some quantities, the arms side by side; fractions."""

    quantities: Sequence[str]
    arms: Mapping[str, Sequence[MeanStd]]
    colours: Mapping[str, str]
    ylabel: str

    def table(self) -> Table:
        rows = [
            [arm, name, _known(value.mean), _known(value.spread), value.n]
            for arm, values in self.arms.items()
            for name, value in zip(self.quantities, values, strict=True)
        ]
        return ["arm", "quantity", "mean", "std", "n"], rows

    def description(self) -> str:
        return "; ".join(
            f"{arm}: "
            + ", ".join(
                f"{name} {_number(value.mean, True)}"
                for name, value in zip(self.quantities, values, strict=True)
            )
            for arm, values in self.arms.items()
        )


Drawing = Lines | Bars | Forest | Histogram | Layers | Dots


@dataclass(frozen=True)
class Figure:
    """A drawing with its texts."""

    name: str
    """The name of its files, without a suffix."""
    title: str
    drawing: Drawing
    caption: str = ""
    small: bool = False
    """Whether it may be placed beside another."""

    @property
    def alternative(self) -> str:
        """The alternative text for screen readers."""
        description = self.drawing.description()
        return f"{self.title}. {description}." if description else self.title

    def to_csv(self) -> str:
        """The plotted numbers, in full precision."""
        header, rows = self.drawing.table()
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(csv_row(row) for row in rows)
        return stream.getvalue()


def _number(value: float, percent: bool) -> str:
    if math.isnan(value):
        return "unknown"
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"


def _known(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _median_bin(counts: Sequence[int], total: int) -> int:
    seen = 0
    for number, count in enumerate(counts):
        seen += count
        if 2 * seen >= total:
            return number
    return len(counts) - 1
