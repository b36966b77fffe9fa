"""The paper's table printed: for a terminal, as Markdown, CSV or LaTeX.

Fractions become percent here; CSV keeps them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sdclr.mean_std import MeanStd
from sdclr.presentation.paper import COLUMNS, SETTINGS, PaperArm, PaperRow, PaperTable
from sdclr.presentation.tables import cell, markdown_table, percent
from sdclr.safe_text import csv_row, latex, markdown, one_line

_LABEL_WIDTH, _NUMBER_WIDTH = 21, 8  # 80 columns in total


def render_terminal(table: PaperTable, console: Console) -> None:
    """Print every arm under each probe; the ± of a mean is on its own line, so that 80 columns are enough."""
    console.print(Text(one_line(table.title), style="bold"))
    for probe, arms in _by_probe(table).items():
        console.print(Text(f"\n{one_line(table.probes[probe])}", style="bold cyan"))
        console.print(_grid([["", *COLUMNS.values()]], style="bold"))
        for arm in arms:
            settings = next(row for row in arm.rows if row.kind == "mean").settings
            console.print(
                Text.assemble(
                    (one_line(arm.label), "bold"), f"  {one_line(_settings_line(settings))}"
                )
            )
            for row in arm.rows:
                differs = row.kind == "published" and row.settings != settings
                label = f"{row.label}{f', {_settings_line(row.settings)}' if differs else ''}"
                numbers = ["\n".join(_cell(row, key).split(" ", 1)) for key in COLUMNS]
                style = {"mean": "bold", "published": "dim", "split": ""}[row.kind]
                console.print(_grid([[label, *numbers]], style))
    console.print()
    for note in table.notes:
        console.print(Text(one_line(note), style="dim"))


def _grid(rows: Sequence[Sequence[str]], style: str) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=_LABEL_WIDTH)
    for _ in COLUMNS:
        grid.add_column(width=_NUMBER_WIDTH, justify="right")
    for label, *numbers in rows:
        grid.add_row(Padding(Text(one_line(label)), (0, 0, 0, 2)), *numbers, style=style)
    return grid


def to_markdown(table: PaperTable) -> str:
    """One table per probe, with the settings of the arm in every row."""
    parts = [f"# {markdown(table.title)}"]
    for probe, arms in _by_probe(table).items():
        body = [
            [arm.label, row.label, *row.settings, *(_cell(row, key) for key in COLUMNS)]
            for arm in arms
            for row in arm.rows
        ]
        header = ["Arm", "", *SETTINGS, *COLUMNS.values()]
        parts += [
            f"## {markdown(table.probes[probe])}",
            markdown_table(header, body, num_text_columns=2 + len(SETTINGS)),
        ]
    return "\n\n".join([*parts, "\n".join(f"- {markdown(note)}" for note in table.notes)]) + "\n"


CSV_HEADER = (
    *("dataset", "protocol", "probe", "arm", "kind", "row", "n", "runs"),
    *(name.replace(" ", "_") for name in SETTINGS),
    *(f"{key}_{part}" for key in COLUMNS for part in ("mean", "std")),
)


def to_csv(table: PaperTable) -> str:
    """One line per row: fractions in full precision; unknown values, and the std of a single split, are empty.

    n counts splits, and runs the trainings: of a split with several seeds their mean is given.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for arm in table.arms:
        for row in arm.rows:
            estimates = [row.values.get(key, MeanStd(math.nan, math.nan, 0)) for key in COLUMNS]
            numbers = [n for e in estimates for n in (e.mean, e.spread)]
            fields = ["" if math.isnan(number) else repr(number) for number in numbers]
            n = max((e.n for e in estimates), default=0) if row.kind != "published" else ""
            protocol = table.protocol if row.kind != "published" else table.published_protocol
            words = [
                table.dataset,
                protocol,
                arm.probe,
                arm.label,
                row.kind,
                row.label,
                n,
                "" if row.num_runs is None else row.num_runs,
                *row.settings,
            ]
            writer.writerow([*csv_row(words), *fields])
    return stream.getvalue()


LATEX_MARK = "% written by sdclr; needs \\usepackage{booktabs}"
"""The first line of our LaTeX files, by which they are recognised."""


def to_latex(table: PaperTable) -> str:
    """One booktabs table per probe, ready for \\input."""
    parts = [LATEX_MARK]
    for probe, arms in _by_probe(table).items():
        header = ["Arm", "", *SETTINGS, *COLUMNS.values()]
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{latex(f'{table.title}. {table.probes[probe]}. ' + ' '.join(table.notes))}}}",
            f"\\begin{{tabular}}{{ll{'c' * len(SETTINGS)}{'r' * len(COLUMNS)}}}",
            "\\toprule",
            " & ".join(map(latex, header)) + " \\\\",
        ]
        for arm in arms:
            lines.append("\\midrule")
            for row in arm.rows:
                cells = [arm.label, row.label, *row.settings, *(_cell(row, key) for key in COLUMNS)]
                lines.append(" & ".join(map(latex, cells)) + " \\\\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join(parts) + "\n"


def _by_probe(table: PaperTable) -> dict[str, list[PaperArm]]:
    groups = {probe: [arm for arm in table.arms if arm.probe == probe] for probe in table.probes}
    return {probe: arms for probe, arms in groups.items() if arms}


def _settings_line(settings: Sequence[str]) -> str:
    """For example "head 3, own norms, temperature 0.2, pruned 0.9", without settings that the method does not have."""
    words = {
        "head depth": "head {}",
        "norms": "{} norms",
        "temperature": "temperature {}",
        "prune ratio": "pruned {}",
    }
    pairs = zip(SETTINGS, settings, strict=True)
    return ", ".join(words[name].format(value) for name, value in pairs if value != "-")


def _cell(row: PaperRow, key: str) -> str:
    estimate = row.values.get(key)
    return percent(math.nan) if estimate is None else cell(estimate)
