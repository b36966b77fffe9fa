"""Evaluated runs: the numbers first, then what is shown for the user's own images without their labels.

This file computes no results; it combines the output of ``tables`` and ``unlabelled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from sdclr.presentation import html, tables, unlabelled
from sdclr.presentation.report import Report
from sdclr.presentation.unlabelled import UnlabelledRun
from sdclr.safe_text import markdown, one_line


@dataclass(frozen=True)
class EvaluatedReport:
    """What is shown for evaluated runs."""

    numbers: Report
    runs: Sequence[UnlabelledRun]
    """Those on the user's own images, in the order given."""


def render_terminal(report: EvaluatedReport, console: Console) -> None:
    """Print the tables, then each run's own."""
    tables.render_terminal(report.numbers, console)
    for run in report.runs:
        console.print()
        if len(report.runs) > 1:
            console.print(Text(one_line(run.record.folder), style="bold"))
        unlabelled.render_run(run, console)


def to_markdown(report: EvaluatedReport) -> str:
    """The same as GitHub-flavoured Markdown."""
    parts = [tables.to_markdown(report.numbers).rstrip("\n")]
    for run in report.runs:
        parts.append(f"# Without labels: {markdown(run.record.folder)}")
        parts += unlabelled.markdown_parts(run)
    return "\n\n".join(parts) + "\n"


def to_csv(report: EvaluatedReport) -> str:
    """Only the numbers: one table, as readers of CSV expect."""
    return tables.to_csv(report.numbers)


def render_html(report: EvaluatedReport) -> str:
    """The page with both."""
    return html.render_html(report.numbers, report.runs)
