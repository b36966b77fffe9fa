"""The report of a grid as data, and its output: terminal, Markdown, CSV, JSON.

Accuracies are fractions until they are printed; effects are percentage points, like the question's d.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdclr.mean_std import MeanStd
from sdclr.presentation.report_json import without_nan
from sdclr.presentation.tables import cell as mean_and_std
from sdclr.safe_text import counted, csv_row, markdown, markdown_line, one_line

MARKDOWN_MARK = "<!-- sdclr grid -->"
JSON_KIND = "sdclr grid report"
JSON_MARK = f'{{\n "kind": "{JSON_KIND}"'
MEASURES = {
    "all": "All",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "group_std": "Std",
}
CSV_HEADER = ("arm", "split", "seed", "probe", *MEASURES, "worst_class", "seconds", "fingerprint")


@dataclass(frozen=True)
class ArmRow:
    """One arm under one probe: mean and population std over its finished cells."""

    arm: str
    probe: str
    means: Mapping[str, MeanStd]
    n: int
    planned: int


@dataclass(frozen=True)
class Interval:
    """In percentage points; nan if no interval can be given."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedArm:
    """An arm against the baseline, paired by split and seed."""

    arm: str
    effect: Interval
    n: int
    planned: int
    std: float
    """That of the paired differences, in points, ddof 1."""
    verdict: str
    beside: Mapping[str, Interval]
    """Measures shown without a verdict: Few, Many, Std."""
    needed: int | None
    """Cells needed for a half-width of d, by the spread so far."""
    needed_for_half: int | None
    """The same for d / 2."""


@dataclass(frozen=True)
class Question:
    """The question and its answer."""

    text: str
    baseline: str
    probe: str
    metric: str
    d: float
    num_comparisons: int
    arms: Sequence[ComparedArm]

    @property
    def heading(self) -> str:
        return f"Against {self.baseline}"

    @property
    def rule(self) -> str:
        """The rule in words."""
        each = 100 * (1 - 0.05 / self.num_comparisons)
        times = counted(self.num_comparisons, "comparison")
        return (
            f"The rule, fixed in the file: an arm helps if the interval of its paired differences in {self.metric} "
            f"({self.probe}) lies above +{self.d:g} points, harms if it lies below -{self.d:g}, has no effect worth "
            f"having if it lies within -{self.d:g} .. +{self.d:g}, and else the question is open. The interval is "
            f"Student's t over the cells (split, seed) that both arms have, at {each:.4g} %: 95 % together for "
            f"{times} (Bonferroni)."
        )


@dataclass(frozen=True)
class SweepPoint:
    """One arm of a sweep."""

    arm: str
    value: float
    accuracy: Interval
    """In percent: the mean over the cells, with its 95 % t-interval."""
    n: int


@dataclass(frozen=True)
class Sweep:
    """Accuracy against one setting."""

    setting: str
    measure: str
    points: Sequence[SweepPoint]

    @property
    def heading(self) -> str:
        return f"Sweep of {self.setting}"


@dataclass(frozen=True)
class MiningCurve:
    """AUROC of few against all other training images by epoch, one curve per cell."""

    arm: str
    column: str
    runs: Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class GridReport:
    """The results of a grid so far."""

    grid: str
    """The name of its file, without the suffix."""
    title: str
    protocol: str
    dataset: str
    probes: Mapping[str, str]
    """Name -> heading."""
    rows: Sequence[ArmRow]
    cells: Sequence[Mapping[str, Any]]
    """One for each finished cell and probe, with the keys of CSV_HEADER."""
    num_done: int
    num_planned: int
    num_failed: int
    failures: Sequence[tuple[str, str]]
    """(cells, their reason)"""
    asked: Question | None
    sweep: Sweep | None
    mining: Sequence[MiningCurve]
    hardware: Sequence[str]
    versions: Sequence[str]
    seconds: float
    """Total time of all cells' training and probes."""
    command: str
    notes: Sequence[str]


Section = tuple[str, list[str], list[list[str]], list[str]]
"""Heading, header, rows and notes of a table."""


def points(interval: Interval) -> str:
    """For example "+1.20 [+0.31, +2.09]"."""
    if math.isnan(interval.mean):
        return "-"
    mean = f"{_plain(interval.mean):+.2f}"
    if math.isnan(interval.low):
        return mean
    return f"{mean} [{_plain(interval.low):+.2f}, {_plain(interval.high):+.2f}]"


def _plain(value: float) -> float:
    return round(value, 2) + 0.0  # avoids "-0.00"


def needed_text(compared: ComparedArm, d: float) -> str:
    """How many cells make the interval narrow enough, by the spread so far."""
    if math.isnan(compared.std):
        if compared.planned < 2:
            return (
                f"{compared.arm}: one split and seed in common with the baseline are planned, and an interval takes "
                "two: this stays open."
            )
        return f"{compared.arm}: at least two finished pairs are needed."
    if compared.std == 0:
        return (
            f"{compared.arm}: all {compared.n} differences are equal, so their spread and the number of cells needed "
            "are not known."
        )

    def number(needed: int | None) -> str:
        return "more than ten million" if needed is None else str(needed)

    return (
        f"{compared.arm}: differences spread by {compared.std:.2f} points (std, n = {compared.n}); a half-width of "
        f"{d:g} takes {number(compared.needed)} cells, of {d / 2:g} takes {number(compared.needed_for_half)}."
    )


def state_text(report: GridReport) -> str:
    done = f"{report.num_done} of {counted(report.num_planned, 'cell')} done"
    return f"{done}, {report.num_failed} failed" if report.num_failed else done


def _table_notes(report: GridReport) -> list[str]:
    return [
        "Percent; mean ± population std over the n finished cells (split, seed). Std, the spread of Many, Medium and "
        "Few, is better when lower.",
        *report.notes,
    ]


def facts(report: GridReport) -> list[str]:
    """How the numbers were made: hardware, versions, time and command."""
    minutes, seconds = divmod(round(report.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return [
        f"Hardware: {'; '.join(report.hardware) or '-'}",
        f"Versions: {'; '.join(report.versions) or '-'}",
        f"Time: {hours}:{minutes:02d}:{seconds:02d} of training and probes in all",
        f"Command: {report.command}",
    ]


def _arm_cells(row: ArmRow) -> list[str]:
    n = str(row.n) if row.n == row.planned else f"{row.n} of {row.planned}"
    return [row.arm, n, *(mean_and_std(row.means[key]) if row.n else "-" for key in MEASURES)]


def _verdict_header(question: Question) -> list[str]:
    beside = [MEASURES.get(key, key) for key in _beside(question)]
    return ["Arm", "n", f"{question.metric}, points", "Verdict", *beside]


def _beside(question: Question) -> list[str]:
    return list(question.arms[0].beside) if question.arms else []


def _verdict_cells(compared: ComparedArm) -> list[str]:
    n = str(compared.n) if compared.n == compared.planned else f"{compared.n} of {compared.planned}"
    beside = [points(one) for one in compared.beside.values()]
    return [compared.arm, n, points(compared.effect), compared.verdict, *beside]


def _sweep_cells(point: SweepPoint) -> list[str]:
    accuracy = point.accuracy
    if math.isnan(accuracy.mean):
        words = "-"
    elif math.isnan(accuracy.low):
        words = f"{accuracy.mean:.2f}"
    else:
        words = f"{accuracy.mean:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"
    return [point.arm, f"{point.value:g}", words, str(point.n)]


def _mining_epochs(report: GridReport) -> list[int]:
    """At most six epochs that every curve has, including the first and the last."""
    sets = [{epoch for epoch, _ in run} for curve in report.mining for run in curve.runs]
    shared = sorted(set.intersection(*sets)) if sets else []
    if len(shared) <= 6:
        return shared
    return [shared[round(place * (len(shared) - 1) / 5)] for place in range(6)]


def _mining_cells(curve: MiningCurve, epochs: Sequence[int]) -> list[str]:
    tables = [dict(run) for run in curve.runs]
    means = [MeanStd.over([table[epoch] for table in tables]) for epoch in epochs]
    words = [f"{one.mean:.3f}" + (f" ± {one.std:.3f}" if one.n > 1 else "") for one in means]
    return [curve.arm, curve.column, str(len(curve.runs)), *words]


MINING_NOTE = (
    "Area under the ROC curve of the few-shot classes' training images against all others, by what training "
    "recorded of each image in that epoch (higher = rarer; of the mass lower); 0.5 is chance. Mean ± std over the runs."
)


def sections(report: GridReport) -> list[Section]:
    """Every table, in order."""
    found: list[Section] = []
    for probe, heading in report.probes.items():
        rows = [_arm_cells(row) for row in report.rows if row.probe == probe]
        notes = _table_notes(report) if probe == list(report.probes)[-1] else []
        found.append((heading, ["Arm", "n", *MEASURES.values()], rows, notes))
    question = report.asked
    if question is not None:
        rows = [_verdict_cells(compared) for compared in question.arms]
        power = [needed_text(compared, question.d) for compared in question.arms]
        notes = [
            question.rule,
            "The numbers right of the verdict have the same interval and no verdict.",
            "How many cells would be needed, by the spread so far:",
            *power,
        ]
        found.append((question.heading, _verdict_header(question), rows, notes))
    if report.sweep is not None:
        header = ["Arm", report.sweep.setting, f"{report.sweep.measure}, percent", "n"]
        rows = [_sweep_cells(point) for point in report.sweep.points]
        notes = ["Mean with its 95 % t-interval over the cells; not paired, not corrected."]
        found.append((report.sweep.heading, header, rows, notes))
    if report.mining:
        epochs = _mining_epochs(report)
        header = ["Arm", "Signal", "n", *(f"epoch {epoch}" for epoch in epochs)]
        rows = [_mining_cells(curve, epochs) for curve in report.mining]
        found.append(("Mining signal", header, rows, [MINING_NOTE]))
    return found


def render_terminal(report: GridReport, console: Console) -> None:
    """Print every table with its notes."""
    console.print(Text(one_line(report.title), style="bold"))
    if report.asked is not None and report.asked.text:
        console.print(Text(one_line(report.asked.text)))
    console.print(Text(f"{state_text(report)}; {report.dataset}, protocol {report.protocol}"))
    for heading, header, rows, notes in sections(report):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        lines = [[one_line(word) for word in row] for row in (header, *rows)]
        widths = _widths(lines, console.width)
        table.width = sum(widths) + 2 * (len(widths) - 1)
        for name, width in zip(header, widths, strict=True):
            table.add_column(Text(one_line(name)), width=width)
        for row in rows:
            table.add_row(*(Text(one_line(word)) for word in row))
        console.print(Text(f"\n{one_line(heading)}", style="bold"))
        console.print(table, crop=False)
        for note in notes:
            console.print(Text(one_line(note), style="dim"))
    console.print()
    for cell, reason in report.failures:
        console.print(Text(one_line(f"failed: {cell}: {reason}"), style="red"), soft_wrap=True)
    for fact in facts(report):
        console.print(Text(one_line(fact), style="dim"), soft_wrap=True)


def _widths(lines: Sequence[Sequence[str]], available: int) -> list[int]:
    """The width of each column in characters. Longer text wraps at spaces; a number is never cut."""
    columns = list(zip(*lines, strict=True))
    least = [
        max(len(word) for text in column for word in (text.split() or [""])) for column in columns
    ]
    widths = [max(map(len, column)) for column in columns]
    between = 2 * (len(widths) - 1)
    while sum(widths) + between > available and widths != least:
        gains = [width - minimum for width, minimum in zip(widths, least, strict=True)]
        widths[gains.index(max(gains))] -= 1
    return widths


def to_markdown(report: GridReport, figures: Mapping[str, str] | None = None) -> str:
    """``figures``: heading -> file name of a picture shown below the table with that heading."""
    lines = [MARKDOWN_MARK, f"# {markdown_line(report.title)}", ""]
    if report.asked is not None and report.asked.text:
        lines += [markdown_line(report.asked.text), ""]
    state = f"{state_text(report)}; {report.dataset}, protocol {report.protocol}."
    lines += [markdown_line(state), ""]
    for heading, header, rows, notes in sections(report):
        lines += [f"## {markdown_line(heading)}", ""]
        lines += ["| " + " | ".join(map(markdown, header)) + " |"]
        lines += ["|---" * len(header) + "|"]
        lines += ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
        lines += [""]
        if figures and heading in figures:
            lines += [f"![{markdown_line(heading)}]({figures[heading]})", ""]
        for note in notes:
            lines += [markdown_line(note), ""]
    if report.failures:
        lines += ["## Failed", ""]
        lines += [f"- {markdown_line(f'{cell}: {reason}')}" for cell, reason in report.failures]
        lines += [""]
    lines += [f"- {markdown_line(fact)}" for fact in facts(report)]
    return "\n".join(lines) + "\n"


def to_csv(report: GridReport) -> str:
    """A row for each finished cell and probe; accuracies are fractions."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for cell in report.cells:
        writer.writerow(csv_row(cell[name] for name in CSV_HEADER))
    return stream.getvalue()


def to_json(report: GridReport) -> str:
    """All numbers of the report; nan is null."""
    content = {"kind": JSON_KIND, **asdict(report)}
    return json.dumps(without_nan(content), indent=1) + "\n"
