"""A report's numbers as plain dataclasses, and as a terminal table, Markdown or CSV.

A arms, C classes. Every accuracy, spread and difference is a fraction here and becomes percent (differences: percentage
points) where it is printed; CSV keeps the fractions. This file computes no result: it is handed means, standard
deviations and intervals.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sdclr.safe_text import csv_row, markdown, markdown_line, one_line

PROBES = {"linear": "Linear probe", "few_shot": "Few-shot probe", "knn": "k-nearest neighbours"}
"""Name of a probe in an evaluation file -> its heading; the order is that of every report."""


GROUP_CONVENTIONS = {
    "thirds": "Many, Medium, Few: thirds of the classes by their long-tailed training images.",
    "thresholds": "Many, Medium, Few: classes with more than 100, 20 to 100, fewer than 20 training images.",
}


@dataclass(frozen=True)
class Column:
    """One measured quantity of the result table."""

    key: str
    header: str
    meaning: str
    drop_order: int = 0
    """On a narrow terminal columns are left out, highest first; 0 stays."""


COLUMNS = (
    Column("many", "Many", "mean accuracy of the classes with many training images", 1),
    Column("medium", "Medium", "mean accuracy of the classes in between", 2),
    Column("few", "Few", "mean accuracy of the classes with few training images"),
    Column("group_std", "Std (lower is better)", "population std of Many, Medium and Few: the paper's balancedness"),
    Column("gap", "Gap", "Many - Few", 3),
    Column("worst_class", "Worst class", "accuracy of the worst class", 4),
    Column("all", "All", "mean of the per-class accuracies"),
)
HEADERS = {column.key: column.header for column in COLUMNS} | {"group_std": "Std"}

COMPARISON_NOTE = (
    "Differences split by split, in percentage points, over the splits both arms share. "
    "A direction is named only where the 95 % interval excludes zero; the intervals are not corrected for their number."
)


@dataclass(frozen=True)
class Estimate:
    """Mean and population std over ``n`` splits, as fractions; ``nan`` for an empty group of classes."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Row:
    """One arm under one probe."""

    probe: str
    arm: str
    n: int
    """Splits."""
    values: Mapping[str, Estimate]
    """Column key -> estimate."""


@dataclass(frozen=True)
class Comparison:
    """Mean of ``arm`` - ``baseline`` over the ``n`` splits that both have, with its interval, as fractions."""

    probe: str
    measure: str
    """A column key."""
    baseline: str
    arm: str
    n: int
    interval: tuple[float, float, float] | None
    """(mean, low, high) of the 95 % t-interval; None with fewer than two shared splits."""


@dataclass(frozen=True)
class Fact:
    """One setting or measurement, a text for each arm."""

    name: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class ArmBars:
    """One arm's accuracy per training-count rank: mean [C] and population std [C] over ``n`` splits."""

    arm: str
    mean: Sequence[float]
    std: Sequence[float]
    n: int


@dataclass(frozen=True)
class ClassBars:
    """Accuracy by rank of the training count, rank 1 (most images) first."""

    probe: str
    counts: Sequence[int]
    """Training images of each rank [C]."""
    groups: Sequence[str]
    """many, medium or few, for each rank [C]."""
    chance: float
    arms: Sequence[ArmBars]


@dataclass(frozen=True)
class ArmCurves:
    """One quantity over the epochs of each of an arm's runs: (epoch from 1, value)."""

    arm: str
    runs: Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class SplitCounts:
    """The images of one split."""

    number: int
    name: str
    seed: int | None
    source: str
    fingerprint: str
    counts: Mapping[str, Sequence[int]]
    """Subset -> images of each class [C]."""


@dataclass(frozen=True)
class RunRecord:
    """Where one run's numbers come from."""

    folder: str
    arm: str
    split: int
    seed: int
    command: str
    commit: str
    created: str


@dataclass(frozen=True)
class Report:
    """All that is shown, in the order of the arms."""

    title: str
    description: str
    group_convention: str
    """thirds or thresholds."""
    dataset: str
    protocol: str
    chance: float
    arms: Sequence[str]
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    facts: Sequence[Fact]
    probe_details: Mapping[str, str]
    """Probe -> how it was fitted, in words."""
    bars: Sequence[ClassBars]
    losses: Sequence[ArmCurves]
    mask_churns: Sequence[ArmCurves]
    class_names: Sequence[str]
    splits: Sequence[SplitCounts]
    runs: Sequence[RunRecord]
    versions: Mapping[str, str]


def percent(value: float) -> str:
    """0.6123 -> "61.23"; "-" for nan."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def estimate_parts(estimate: Estimate) -> tuple[str, str]:
    """("61.23", "± 1.10") in percent; no ± for a single split, where a spread is not known."""
    if estimate.n < 2 or math.isnan(estimate.mean):
        return percent(estimate.mean), ""
    return percent(estimate.mean), f"± {percent(estimate.std)}"


def cell(estimate: Estimate) -> str:
    return " ".join(estimate_parts(estimate)).rstrip()


def comparison_text(comparison: Comparison) -> str:
    """The only wording a comparison gets: a direction is named only where the interval excludes zero.

    Judged on the printed digits, so an interval that shows an end at 0.00 claims nothing.
    """
    header, is_std = HEADERS[comparison.measure], comparison.measure == "group_std"
    if comparison.interval is None:
        shared = "one split: no interval can be given" if comparison.n else "no split in common: nothing to compare"
        return f"{header}: {shared}"
    mean, low, high = (round(100 * value, 2) + 0.0 for value in comparison.interval)  # + 0.0: no "-0.00"
    basis = f"({'lower is better; ' if is_std else ''}95 % t-interval, n = {comparison.n} splits)"
    if low <= 0 <= high:
        return f"{header}: no difference shown: {mean:+.2f} [{low:.2f}, {high:.2f}] points {basis}"
    direction, near, far = ("higher", low, high) if low > 0 else ("lower", -high, -low)
    size = f"{direction} by {abs(mean):.2f} [{near:.2f}, {far:.2f}] points"
    return f"Std {size} with {comparison.arm} {basis}" if is_std else f"{header}: {comparison.arm} {size} {basis}"


def reading_notes(report: Report) -> list[str]:
    """What the result table's numbers are."""
    return [
        "Percent; mean ± population std over n splits (the seeds of a split are averaged first). "
        f"Std, the spread of Many, Medium and Few, is better when lower. Chance is {percent(report.chance)}.",
        GROUP_CONVENTIONS[report.group_convention],
    ]


def by_probe(report: Report) -> dict[str, list[Row]]:
    """Probe -> its rows, in the order of PROBES."""
    groups = {probe: [row for row in report.rows if row.probe == probe] for probe in PROBES}
    return {probe: rows for probe, rows in groups.items() if rows}


def comparison_groups(report: Report) -> list[tuple[str, list[Comparison]]]:
    """(heading, comparisons) for each pair of arms under each probe."""
    groups: dict[str, list[Comparison]] = {}
    for c in report.comparisons:
        groups.setdefault(f"{c.arm} against {c.baseline}, {PROBES[c.probe].lower()}", []).append(c)
    return list(groups.items())


def render_terminal(report: Report, console: Console) -> None:
    """Print everything but the figures; columns that do not fit are left out, numbers are never cut."""
    console.print(Text(one_line(report.title), style="bold"))
    console.print(Text(one_line(report.description)))
    columns = _columns_that_fit(report, console)
    for probe in by_probe(report):
        console.print(_result_table(report, probe, columns))
    missing = [column.header for column in COLUMNS if column not in columns]
    if missing:
        console.print(Text(f"Not shown at this width: {', '.join(missing)}.", style="dim"))
    for note in reading_notes(report):
        console.print(Text(note, style="dim"))
    for heading, comparisons in comparison_groups(report):
        console.print(Text(f"\n{one_line(heading)}", style="bold"))
        for c in comparisons:
            console.print(Padding(Text(one_line(comparison_text(c))), (0, 0, 0, 2)))
    if report.comparisons:
        console.print(Text(f"\n{COMPARISON_NOTE}", style="dim"))
    console.print(_facts_table(report))


def _columns_that_fit(report: Report, console: Console) -> list[Column]:
    """As many columns as every result table can show at the console's width."""
    unlimited = console.options.update(max_width=1000)
    for level in range(max(column.drop_order for column in COLUMNS), -1, -1):
        columns = [column for column in COLUMNS if column.drop_order <= level]
        candidates = [_result_table(report, probe, columns) for probe in by_probe(report)]
        if max(Measurement.get(console, unlimited, table).minimum for table in candidates) <= console.width:
            break
    return columns


def _result_table(report: Report, probe: str, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify, table.title_style = f"\n{PROBES[probe]}", "left", "bold cyan"
    # labels fold at spaces, headers too; digits never do
    table.add_column("Arm", overflow="fold", min_width=min(12, max(map(len, report.arms))))
    table.add_column("n", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(column.header, justify="right", min_width=_number_width(report, column))
    for row in by_probe(report)[probe]:
        table.add_row(Text(one_line(row.arm)), str(row.n), *(cell(row.values[column.key]) for column in columns))
    return table


def _number_width(report: Report, column: Column) -> int:
    return max((len(cell(row.values[column.key])) for row in report.rows), default=1)


def _facts_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="\nWhat differs (≠)", title_justify="left")
    table.title_style = "bold"
    table.add_column("")
    for arm in report.arms:
        table.add_column(Text(one_line(arm)), overflow="fold")
    for fact in report.facts:
        mark = "≠" if fact.differs and len(report.arms) > 1 else " "
        values = [Text(one_line(value)) for value in fact.values]
        table.add_row(Text(f"{mark} {one_line(fact.name)}"), *values, style="" if mark == "≠" else "dim")
    return table


MARKDOWN_MARK = "<!-- written by sdclr -->"
"""The first line of our Markdown files, by which they are known for ours."""


def to_markdown(report: Report) -> str:
    """Title, results, comparisons and what differs, as GitHub-flavoured Markdown."""
    parts = [f"# {markdown(report.title)}", markdown_line(report.description)]
    header = ["Probe", "Arm", "n", *(column.header for column in COLUMNS)]
    body = [
        [PROBES[row.probe], row.arm, str(row.n), *(cell(row.values[column.key]) for column in COLUMNS)]
        for rows in by_probe(report).values()
        for row in rows
    ]
    parts += [markdown_table(header, body, num_text_columns=2), *map(markdown_line, reading_notes(report))]
    for heading, comparisons in comparison_groups(report):
        lines = [f"- {markdown(comparison_text(c))}" for c in comparisons]
        parts += [f"## {markdown(heading)}", "\n".join(lines)]
    parts += [markdown(COMPARISON_NOTE)] if report.comparisons else []
    facts = [[f"{fact.name} (differs)" if fact.differs else fact.name, *fact.values] for fact in report.facts]
    parts += ["## What differs", markdown_table(["", *report.arms], facts, num_text_columns=len(report.arms) + 1)]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], num_text_columns: int) -> str:
    """A GitHub-flavoured table; the columns after the text columns are right-aligned."""
    body = [list(map(markdown, line)) for line in body]
    rules = ["---"] * num_text_columns + ["---:"] * (len(header) - num_text_columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(map(markdown, header)), rules, *body])


CSV_HEADER = (
    *("dataset", "protocol", "probe", "arm", "n"),
    *(f"{column.key}_{part}" for column in COLUMNS for part in ("mean", "std")),
)


def to_csv(report: Report) -> str:
    """One line per probe and arm: n, then mean and std of every column as fractions in full precision.

    An empty group of classes leaves its fields empty; a single split leaves the std empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for rows in by_probe(report).values():
        for row in rows:
            estimates = [row.values[column.key] for column in COLUMNS]
            numbers = [n for e in estimates for n in (e.mean, e.std if e.n > 1 else math.nan)]
            fields = ["" if math.isnan(number) else repr(number) for number in numbers]
            writer.writerow([*csv_row([report.dataset, report.protocol, row.probe, row.arm]), row.n, *fields])
    return stream.getvalue()
