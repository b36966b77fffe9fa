"""One self-contained HTML page from a report: no external font, image, style or script.

The template escapes everything; only the SVG made by ``plots`` is inserted unescaped (matplotlib escapes its labels).
Control and bidirectional characters are shown as escapes. A Content-Security-Policy lets the page load nothing, and run
nothing but the one script that sorts its tables, whatever a name in it contains.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from sdclr.presentation import tables
from sdclr.presentation.drawings import Figure
from sdclr.presentation.figures import Material
from sdclr.presentation.map import map_tiles
from sdclr.presentation.pages import MARK as MARK
from sdclr.presentation.pages import allowed, has_template, source, template
from sdclr.presentation.report import COLUMNS, Report, SplitCounts
from sdclr.presentation.sections import SECTIONS, Subject, arrangement, missing
from sdclr.presentation.unlabelled import UnlabelledReport, UnlabelledRun


@dataclass(frozen=True)
class Plot:
    """A figure as shown on the page."""

    title: str
    caption: str
    alternative: str
    """The alternative text for screen readers."""
    svg: Markup
    file: str
    data: str
    """A data: URL of the numbers, as CSV."""
    small: bool


@dataclass(frozen=True)
class Part:
    """One section of the page."""

    id: str
    title: str
    hint: str
    template: str
    subject: Subject
    plots: Sequence[Plot]


def render_unlabelled_html(report: UnlabelledReport) -> str:
    """The page of runs without an evaluation, including pictures, as text."""
    lead = [run.description for run in report.runs]
    return _page(report.title, lead, None, report.runs, [run.record.arm for run in report.runs])


def render_html(report: Report, runs: Sequence[UnlabelledRun] = ()) -> str:
    """The whole page as text; ``runs``: what is shown about their images besides the numbers."""
    return _page(report.title, [report.description], report, runs, report.arms)


def digest_of_runs(folders: Iterable[Path | str]) -> str:
    """A digest that identifies the runs of a page, wherever they are."""
    names = sorted(Path(folder).absolute().name for folder in folders)
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


def runs_of_page(text: str) -> str | None:
    """The digest in the head of a page; None if an earlier version wrote the page."""
    found = re.search(r'<meta name="runs" content="([0-9a-f]{16})">', text)
    return found[1] if found else None


def material_of(
    report: Report | None, runs: Sequence[UnlabelledRun], arms: Sequence[str]
) -> Material:
    """The data for figures, with the colour of each arm."""
    from sdclr.presentation import plots  # imports matplotlib, which only figures need

    return Material(report, runs, plots.arm_colours(list(dict.fromkeys(arms))), plots.GROUP_COLOURS)


def _page(
    title: str,
    lead: Sequence[str],
    report: Report | None,
    runs: Sequence[UnlabelledRun],
    arms: Sequence[str],
) -> str:
    material = material_of(report, runs, arms)
    parts = [
        _part(number, name, subject) for number, (name, subject) in enumerate(arrangement(material))
    ]
    script = source("report.js")
    records = report.runs if report is not None else [run.record for run in runs]
    return template("report.html.j2").render(
        title=title,
        of_runs=digest_of_runs([record.folder for record in records]),
        lead=lead,
        blocks=[
            (run if len(runs) > 1 else None, list(of_run))
            for run, of_run in groupby(parts, key=lambda part: part.subject.run)
        ],
        parts=parts,
        report=report,
        tables=tables,
        columns=COLUMNS,
        colours=material.colours,
        image_counts=_image_counts,
        missing=missing,
        map_tiles=map_tiles,
        script=Markup(script),
        script_hash=Markup(allowed(script)),
    )


def _part(number: int, name: str, subject: Subject) -> Part:
    row = SECTIONS[name]
    file = f"sections/{row.template or name}.html.j2"
    return Part(
        # ids in an SVG are not escaped, so they contain no file names
        f"{name.replace('_', '-')}-{number}",
        row.title,
        row.hint,
        file if has_template(file) else "sections/figures.html.j2",
        subject,
        [_plot(figure, f"{name}-{number}-{n}") for n, figure in enumerate(subject.figures(name))],
    )


def _plot(figure: Figure, name: str) -> Plot:
    from sdclr.presentation import plots  # imports matplotlib, which only figures need

    svg = plots.svg_of(figure.drawing, name, small=figure.small)
    return Plot(
        figure.title,
        figure.caption,
        figure.alternative,
        Markup(svg),
        f"{figure.name}.csv",
        f"data:text/csv;charset=utf-8,{quote(figure.to_csv(), safe=_PLAIN)}",
        figure.small,
    )


_PLAIN = ",.;:()[]/-_+*@!~"
"""Characters that need no escape in a data: URL."""


def _image_counts(split: SplitCounts, subset: str) -> tuple[str, str]:
    """("1,240", "500 … 5"): the images of a subset, and those of its largest and smallest class."""
    counts: Sequence[int] = split.counts.get(subset, ())
    return (f"{sum(counts):,}", f"{max(counts):,} … {min(counts):,}") if counts else ("-", "")
