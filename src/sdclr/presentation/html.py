"""One self-contained HTML page from a report: no script, no font, image or style from elsewhere.

The template escapes everything; only the SVG made by ``plots`` is inserted as it is (matplotlib escapes its labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sdclr.presentation import plots, tables
from sdclr.presentation.tables import Report, SplitCounts


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and the sentence under it."""

    title: str
    caption: str
    svg: Markup


def render_html(report: Report) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=PackageLoader("sdclr.presentation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        tables=tables,
        bars=_bar_plots(report),
        curves=_curve_plots(report),
        palette=[plots.PALETTE[number % len(plots.PALETTE)] for number in range(len(report.arms))],
        spread=_spread,
    )


def _bar_plots(report: Report) -> list[Plot]:
    caption = (
        "Classes sorted from the most to the fewest training images in each split; rank, not identity, is averaged over "
        "the splits. Whiskers: population std over the splits."
    )
    return [
        Plot(plots.bars_title(bars), caption, Markup(plots.class_bars_svg(bars, f"bars-{bars.probe}")))
        for bars in report.bars
    ]


def _curve_plots(report: Report) -> list[Plot]:
    figures = []
    thin = "Thin lines are runs, thick ones their mean."
    if report.losses:
        caption = f"The losses of SimCLR and SDCLR are different quantities: compare shapes, not heights. {thin}"
        figures.append(Plot("Training loss", caption, Markup(plots.curves_svg(report.losses, "Loss", "loss"))))
    if report.mask_churns:
        caption = f"Share of the mask that changed when it was refreshed at the start of the epoch. {thin}"
        svg = plots.curves_svg(report.mask_churns, "Mask churn", "churn")
        figures.append(Plot("Mask churn", caption, Markup(svg)))
    return figures


def _spread(split: SplitCounts, subset: str) -> str:
    """ "1,240 (500 … 5)": all images of a subset, and those of its largest and smallest class."""
    counts: Sequence[int] = split.counts.get(subset, ())
    return f"{sum(counts):,} ({max(counts):,} … {min(counts):,})" if counts else "-"
