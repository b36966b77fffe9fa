"""Print a report: a table on the terminal, Markdown, CSV.

Fractions become percent here (differences: percentage points); CSV keeps the fractions.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sdclr.mean_std import MeanStd
from sdclr.presentation.report import COLUMNS, HEADERS, Column, Comparison, Report, Row
from sdclr.safe_text import csv_row, markdown, markdown_line, one_line

_COUNTED = "in the long-tailed set (all training images, if none was drawn)."
GROUP_CONVENTIONS = {
    "thirds": f"Many, Medium, Few: thirds of the classes by how many images they have {_COUNTED}",
    "thresholds": f"Many, Medium, Few: classes with more than 100, 20 to 100, fewer than 20 images {_COUNTED}",
}


COMPARISON_NOTE = (
    "Differences split by split, in percentage points, over the splits both arms share. "
    "A direction is named only where the 95 % interval excludes zero; the intervals are not corrected for their number."
)
SEEDS_NOTE = (
    "Differences seed by seed, in percentage points, over the seeds both arms share, on one split: the intervals say "
    "what another training would give, not other images. A direction is named only where the 95 % interval excludes "
    "zero; the intervals are not corrected for their number."
)


def comparison_notes(report: Report) -> list[str]:
    """How to read the comparisons; empty if there are none."""
    if not report.comparisons:
        return []
    if not report.is_as_given:
        return [SEEDS_NOTE if report.over == "seeds" else COMPARISON_NOTE]
    differences = SEEDS_NOTE if report.over == "seeds" else "Differences in percentage points."
    return [
        f"{differences} sdclr evaluate RUN --against OTHER_RUN compares two runs image by image, with intervals."
    ]


def percent(value: float) -> str:
    """0.6123 -> "61.23"; "-" for nan."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def estimate_parts(estimate: MeanStd) -> tuple[str, str]:
    """("61.23", "± 1.10") in percent; no ± for a single split, whose spread is unknown."""
    if math.isnan(estimate.mean) or math.isnan(estimate.spread):
        return percent(estimate.mean), ""
    return percent(estimate.mean), f"± {percent(estimate.spread)}"


def cell(estimate: MeanStd) -> str:
    return " ".join(estimate_parts(estimate)).rstrip()


def interval_text(interval: tuple[float, float, float]) -> str:
    """(0.011, -0.014, 0.036) -> "+1.10 [-1.40, 3.60]", in percentage points. For the page's templates."""
    mean, low, high = (100 * value + 0.0 for value in interval)
    return f"{mean:+.2f} [{low:.2f}, {high:.2f}]"


def comparison_text(comparison: Comparison) -> str:
    """The single wording of comparisons: a direction is named only if the interval excludes zero.

    Judged on the printed digits, so an interval with an end printed as 0.00 makes no claim.
    """
    header, is_std = HEADERS[comparison.measure], comparison.measure == "group_std"
    if comparison.interval is None:
        one = comparison.over.removesuffix("s")
        if comparison.single is None:
            return f"{header}: no {one} in common: nothing to compare"
        points = f"{100 * comparison.single + 0.0:+.2f} points"
        if comparison.n > 1:
            every = f"all {comparison.n} {comparison.over}"
            return f"{header}: the same difference, {points}, on {every}: no interval can be given"
        return f"{header}: {points} on one {one}: no interval can be given"
    # + 0.0 avoids "-0.00"
    mean, low, high = (round(100 * value, 2) + 0.0 for value in comparison.interval)
    basis = f"({'lower is better; ' if is_std else ''}95 % t-interval, n = {comparison.n} {comparison.over})"
    if low <= 0 <= high:
        return f"{header}: no difference shown: {mean:+.2f} [{low:.2f}, {high:.2f}] points {basis}"
    direction, near, far = ("higher", low, high) if low > 0 else ("lower", -high, -low)
    size = f"{direction} by {abs(mean):.2f} [{near:.2f}, {far:.2f}] points"
    return (
        f"Std {size} with {comparison.arm} {basis}"
        if is_std
        else f"{header}: {comparison.arm} {size} {basis}"
    )


def reading_notes(report: Report) -> list[str]:
    """How to read the numbers of the result table."""
    spread = (
        "Percent; mean ± population std over n splits (the seeds of a split are averaged first)."
    )
    if report.over == "seeds":
        spread = "Percent; mean ± population std over n seeds of one split."
    elif report.is_as_given or all(row.n == 1 for row in report.rows):
        spread = "Percent."
    return [
        f"{spread} Std, the spread of Many, Medium and Few, is better when lower. Chance is {percent(report.chance)}.",
        GROUP_CONVENTIONS[report.group_convention],
        *(
            [PLAIN_ACCURACY]
            if any("accuracy" in detail for detail in report.probe_details.values())
            else []
        ),
    ]


PLAIN_ACCURACY = "All is the mean over the classes; the accuracies of folds and of validation count every image alike."
"""Shown wherever both kinds of accuracy appear."""


def probe_notes(report: Report) -> list[str]:
    """How each probe was fitted, one line each; none for a probe if the runs differ in it."""
    return [
        f"{heading}: {report.probe_details[p]}"
        for p, heading in report.probes.items()
        if report.probe_details.get(p)
    ]


def by_probe(report: Report) -> dict[str, list[Row]]:
    """Probe -> its rows, in the order of every table."""
    groups = {probe: [row for row in report.rows if row.probe == probe] for probe in report.probes}
    return {probe: rows for probe, rows in groups.items() if rows}


def comparison_groups(report: Report) -> list[tuple[str, list[Comparison]]]:
    """(heading, comparisons) for each pair of arms under each probe."""
    groups: dict[str, list[Comparison]] = {}
    for c in report.comparisons:
        groups.setdefault(
            f"{c.arm} against {c.baseline}, {report.probes[c.probe].lower()}", []
        ).append(c)
    return list(groups.items())


def render_terminal(report: Report, console: Console) -> None:
    """Print everything except the figures; columns that do not fit are left out, numbers are never cut."""
    console.print(Text(one_line(report.title), style="bold"))
    console.print(Text(one_line(report.description)))
    columns = _columns_that_fit(report, console)
    for probe in by_probe(report):
        console.print(_result_table(report, probe, columns))
    missing = [column.header for column in COLUMNS if column not in columns]
    if missing:
        console.print(Text(f"Not shown at this width: {', '.join(missing)}.", style="dim"))
    for note in [*reading_notes(report), *probe_notes(report)]:
        console.print(Text(one_line(note), style="dim"))
    for heading, comparisons in comparison_groups(report):
        console.print(Text(f"\n{one_line(heading)}", style="bold"))
        for c in comparisons:
            console.print(Padding(Text(one_line(comparison_text(c))), (0, 0, 0, 2)))
    for note in comparison_notes(report):
        console.print(Text(f"\n{note}", style="dim"))
    console.print(_facts_table(report))


def _columns_that_fit(report: Report, console: Console) -> list[Column]:
    """As many columns as every result table can show at the console's width."""
    unlimited = console.options.update(max_width=1000)
    for level in range(max(column.drop_order for column in COLUMNS), -1, -1):
        columns = [column for column in COLUMNS if column.drop_order <= level]
        candidates = [_result_table(report, probe, columns) for probe in by_probe(report)]
        if (
            max(Measurement.get(console, unlimited, table).minimum for table in candidates)
            <= console.width
        ):
            break
    return columns


def _result_table(report: Report, probe: str, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify, table.title_style = (
        f"\n{one_line(report.probes[probe])}",
        "left",
        "bold cyan",
    )
    # labels fold at spaces, headers too; digits never do
    table.add_column("Arm", overflow="fold", min_width=min(12, max(map(len, report.arms))))
    table.add_column("n", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(column.header, justify="right", min_width=_number_width(report, column))
    for row in by_probe(report)[probe]:
        table.add_row(
            Text(one_line(row.arm)),
            str(row.n),
            *(cell(row.values[column.key]) for column in columns),
        )
    return table


def _number_width(report: Report, column: Column) -> int:
    return max((len(cell(row.values[column.key])) for row in report.rows), default=1)


def _facts_table(report: Report) -> Table:
    several = len(report.arms) > 1
    title = "\nWhat differs (≠)" if several else "\nWhat was done"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.title_style = "bold"
    table.add_column("")
    for arm in report.arms:
        table.add_column(Text(one_line(arm)), overflow="fold")
    for fact in report.facts:
        mark = "≠" if fact.differs and several else " "
        values = [Text(one_line(value)) for value in fact.values]
        table.add_row(
            Text(f"{mark} {one_line(fact.name)}"), *values, style="" if mark == "≠" else "dim"
        )
    return table


MARKDOWN_MARK = "<!-- written by sdclr -->"
"""The first line of our Markdown files, by which they are recognised."""


def to_markdown(report: Report) -> str:
    """Title, results, comparisons and what differs, as GitHub-flavoured Markdown."""
    parts = [f"# {markdown(report.title)}", markdown_line(report.description)]
    header = ["Probe", "Arm", "n", *(column.header for column in COLUMNS)]
    body = [
        [
            report.probes[row.probe],
            row.arm,
            str(row.n),
            *(cell(row.values[column.key]) for column in COLUMNS),
        ]
        for rows in by_probe(report).values()
        for row in rows
    ]
    notes = [*reading_notes(report), *probe_notes(report)]
    parts += [markdown_table(header, body, num_text_columns=2), *map(markdown_line, notes)]
    for heading, comparisons in comparison_groups(report):
        lines = [f"- {markdown(comparison_text(c))}" for c in comparisons]
        parts += [f"## {markdown(heading)}", "\n".join(lines)]
    parts += map(markdown, comparison_notes(report))
    facts = [
        [f"{fact.name} (differs)" if fact.differs else fact.name, *fact.values]
        for fact in report.facts
    ]
    parts += [
        "## What differs" if len(report.arms) > 1 else "## What was done",
        markdown_table(["", *report.arms], facts, num_text_columns=len(report.arms) + 1),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(
    header: Sequence[str], body: Sequence[Sequence[str]], num_text_columns: int
) -> str:
    """A GitHub-flavoured table; the columns after the text columns are right-aligned."""
    body = [list(map(markdown, line)) for line in body]
    rules = ["---"] * num_text_columns + ["---:"] * (len(header) - num_text_columns)
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [list(map(markdown, header)), rules, *body]
    )


CSV_HEADER = (
    *("dataset", "protocol", "probe", "arm", "n"),
    *(f"{column.key}_{part}" for column in COLUMNS for part in ("mean", "std")),
)


def to_csv(report: Report) -> str:
    """One line per probe and arm: n, then mean and std of every column as fractions in full precision.

    An empty group of classes leaves its fields empty; a single split or seed leaves the std empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for rows in by_probe(report).values():
        for row in rows:
            estimates = [row.values[column.key] for column in COLUMNS]
            numbers = [n for e in estimates for n in (e.mean, e.spread)]
            fields = ["" if math.isnan(number) else repr(number) for number in numbers]
            writer.writerow(
                [*csv_row([report.dataset, report.protocol, row.probe, row.arm]), row.n, *fields]
            )
    return stream.getvalue()
