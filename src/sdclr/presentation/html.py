"""One self-contained HTML page from a report: no script, no font, image or style from elsewhere.

The template escapes everything; only the SVG made by ``plots`` is inserted as it is (matplotlib escapes its labels).
Controls and turning signs are shown as escapes. A Content-Security-Policy lets the page load and run nothing, whatever
a name in it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sdclr.presentation import tables
from sdclr.presentation.pages import MARK as MARK
from sdclr.presentation.pages import template
from sdclr.presentation.report import COLUMNS, Report, SplitCounts
from sdclr.presentation.unlabelled import UnlabelledReport, UnlabelledRun


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and the words under it."""

    title: str
    caption: str
    svg: Markup


def render_unlabelled_html(report: UnlabelledReport) -> str:
    """The page of runs that nothing was evaluated of, pictures included, as text."""
    runs = [
        {**vars(run), "curves": _curves_of(run, number)} for number, run in enumerate(report.runs)
    ]
    return template("unlabelled.html.j2").render(title=report.title, runs=runs)


def _curves_of(run: UnlabelledRun, number: int) -> list[Plot]:
    from sdclr.presentation import plots  # matplotlib, which only a page needs

    colours = plots.arm_colours([run.record.arm])
    figures = []
    for place, curves in enumerate(run.curves):
        svg = plots.curves_svg(curves.arms, colours, curves.curve.ylabel, f"curve-{number}-{place}")
        caption = curves.curve.caption_alone or curves.curve.caption
        figures.append(Plot(curves.curve.title, caption, Markup(svg)))
    return figures


def render_html(report: Report, runs: Sequence[UnlabelledRun] = ()) -> str:
    """The whole page as text; ``runs``: what is to be shown of their images besides the numbers."""
    from sdclr.presentation import plots  # matplotlib, which only a page needs

    colours = plots.arm_colours(report.arms)
    return template("report.html.j2").render(
        report=report,
        runs=[{**vars(run), "curves": []} for run in runs],  # the page has the curves of all runs
        tables=tables,
        columns=COLUMNS,
        bars=_bar_plots(report, colours),
        curves=_curve_plots(report, colours),
        colours=colours,
        image_counts=_image_counts,
    )


def _bar_plots(report: Report, colours: Mapping[str, str]) -> list[Plot]:
    from sdclr.presentation import plots  # matplotlib, which only a page needs

    caption = (
        "Classes sorted from the most to the fewest training images in each split; what is averaged over the splits is "
        "the rank, not the class. Whiskers: population std over the splits."
    )
    figures = []
    for number, bars in enumerate(report.bars):
        # by number: a probe's name may come from a file, and ids of an SVG are not escaped
        svg = plots.class_bars_svg(bars, colours, f"bars-{number}")
        said = caption if bars is report.bars[-1] else ""  # once, below them all
        figures.append(Plot(report.probes[bars.probe], said, Markup(svg)))
    return figures


def _curve_plots(report: Report, colours: Mapping[str, str]) -> list[Plot]:
    from sdclr.presentation import plots  # matplotlib, which only a page needs

    figures = []
    for number, curves in enumerate(report.curves):
        svg = plots.curves_svg(curves.arms, colours, curves.curve.ylabel, f"curve-{number}")
        caption = f"{curves.curve.caption} Thin lines are runs, thick ones their mean.".lstrip()
        figures.append(Plot(curves.curve.title, caption, Markup(svg)))
    return figures


def _image_counts(split: SplitCounts, subset: str) -> tuple[str, str]:
    """("1,240", "500 … 5"): the images of a subset, and those of its largest and smallest class."""
    counts: Sequence[int] = split.counts.get(subset, ())
    return (f"{sum(counts):,}", f"{max(counts):,} … {min(counts):,}") if counts else ("-", "")
