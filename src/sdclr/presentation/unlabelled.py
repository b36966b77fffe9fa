"""Runs without an evaluation: what is shown for them without labels, on a terminal, a page, as Markdown or CSV.

This file computes no results; it receives numbers, names and small pictures.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdclr.presentation.details import RunDetails
from sdclr.presentation.report import Curves, RunRecord
from sdclr.presentation.tables import markdown_table
from sdclr.safe_text import csv_row, markdown, markdown_line, one_line


@dataclass(frozen=True)
class Measure:
    """One number before and after training; ``nan`` if unknown."""

    key: str
    name: str
    meaning: str
    before: float
    before_half_width: float
    """Half-width of the 95 % interval over the images; ``nan`` if there is none."""
    after: float
    after_half_width: float
    percent: bool = False
    """Whether the number is a share."""

    @property
    def before_text(self) -> str:
        return self._text(self.before, self.before_half_width)

    @property
    def after_text(self) -> str:
        return self._text(self.after, self.after_half_width)

    def _text(self, value: float, half_width: float) -> str:
        if math.isnan(value):
            return "-"
        factor, digits, unit = (100, 1, " %") if self.percent else (1, 3 if value < 10 else 1, "")
        spread = "" if math.isnan(half_width) else f" ± {factor * half_width:.{digits}f}"
        return f"{factor * value:.{digits}f}{spread}{unit}"


@dataclass(frozen=True)
class Picture:
    """A small image embedded in a page."""

    path: str
    """Path of the image it shows, relative to the folder of the images."""
    source: str
    """A data: URL."""
    note: str = ""


@dataclass(frozen=True)
class PictureRow:
    """Pictures that belong together; the others are compared with the first."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class ImageList:
    """Images that a reader should know about, the first of them by name."""

    title: str
    lines: Sequence[str]
    num_more: int = 0


@dataclass(frozen=True)
class Reason:
    """A setting that was chosen for the user."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class UnlabelledRun:
    """All that is shown for one run."""

    title: str
    description: str
    verdict: str
    """The result of the measures, in a sentence or two; empty if there are none."""
    measures: Sequence[Measure]
    why_not_examined: str
    """Why there are no measures; empty if there are."""
    why_no_comparison: str
    """Why the network before training is unknown; empty if it is known."""
    num_images: int
    num_sampled: int
    curves: Sequence[Curves]
    gallery: Sequence[PictureRow]
    views: Sequence[PictureRow]
    lists: Sequence[ImageList]
    choices: Sequence[Reason]
    settings: Sequence[tuple[str, str]]
    record: RunRecord
    hardware: str
    versions: Mapping[str, str]
    details: RunDetails | None = None
    """What a page shows in addition; None if the run is one of several that are compared."""


@dataclass(frozen=True)
class UnlabelledReport:
    """Runs without an evaluation, in the order given."""

    runs: Sequence[UnlabelledRun]

    @property
    def title(self) -> str:
        return ", ".join(dict.fromkeys(run.title for run in self.runs))


def render_terminal(report: UnlabelledReport, console: Console) -> None:
    """Print everything except curves and pictures."""
    for run in report.runs:
        console.print(Text(one_line(run.title), style="bold"))
        console.print(Text(one_line(run.description)))
        render_run(run, console)


def render_run(run: UnlabelledRun, console: Console) -> None:
    """Print what is known of a run without labels; the caller has printed a title."""
    if not run.measures:
        console.print(Text(one_line(run.why_not_examined)))
    else:
        console.print(Text(one_line(run.verdict)))
        console.print(_measures_table(run))
        if run.why_no_comparison:
            console.print(Text(f"Before training: {one_line(run.why_no_comparison)}.", style="dim"))
    for found in run.lists:
        console.print(Text(one_line(found.title)))
    if run.choices:
        console.print(_choices_table(run))


def _measures_table(run: UnlabelledRun) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"On {run.num_sampled} of {run.num_images:,} images")
    table.add_column("before training", justify="right", no_wrap=True)
    table.add_column("after training", justify="right", no_wrap=True)
    for measure in run.measures:
        table.add_row(measure.name, measure.before_text, measure.after_text)
    return table


def _choices_table(run: UnlabelledRun) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Settings chosen for these images", overflow="fold")
    table.add_column("")
    for choice in run.choices:
        words = Text(one_line(f"{choice.setting}={choice.value}"))
        table.add_row(words, Text(one_line(choice.reason), style="dim"))
    return table


def to_markdown(report: UnlabelledReport) -> str:
    """The same as GitHub-flavoured Markdown."""
    parts: list[str] = []
    for run in report.runs:
        parts += [f"# {markdown(run.title)}", markdown_line(run.description), *markdown_parts(run)]
    return "\n\n".join(parts) + "\n"


def markdown_parts(run: UnlabelledRun) -> list[str]:
    """The paragraphs, tables and lists of one run, below its title."""
    parts: list[str] = []
    if run.measures:
        header = [
            f"On {run.num_sampled} of {run.num_images:,} images",
            "before training",
            "after training",
        ]
        body = [[one.name, one.before_text, one.after_text] for one in run.measures]
        parts += [markdown_line(run.verdict), markdown_table(header, body, num_text_columns=1)]
    else:
        parts.append(markdown_line(run.why_not_examined))
    for found in run.lists:
        parts += [f"## {markdown(found.title)}"]
        if found.lines:
            parts.append("\n".join(f"- {markdown(line)}" for line in found.lines))
    if run.choices:
        rows = [[one.setting, one.value, one.reason] for one in run.choices]
        parts += [
            "## Settings",
            markdown_table(["setting", "value", "reason"], rows, num_text_columns=3),
        ]
    return parts


CSV_HEADER = (
    "run",
    "measure",
    "images",
    "before",
    "before_half_width",
    "after",
    "after_half_width",
)


def to_csv(report: UnlabelledReport) -> str:
    """One line for each run and measure, in full precision; unknown values are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for run in report.runs:
        for one in run.measures:
            numbers = (one.before, one.before_half_width, one.after, one.after_half_width)
            fields = ["" if math.isnan(number) else repr(number) for number in numbers]
            writer.writerow([*csv_row([run.record.folder, one.key]), run.num_sampled, *fields])
    return stream.getvalue()
