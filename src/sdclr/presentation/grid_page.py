"""The report of a grid as one self-contained page."""

from __future__ import annotations

from markupsafe import Markup

from sdclr.presentation.grid import GridReport, facts, sections, state_text
from sdclr.presentation.grid_figures import figures
from sdclr.presentation.pages import template


def render_grid_html(report: GridReport) -> str:
    """The whole page as text."""
    return template("grid.html.j2").render(
        title=report.title,
        report=report,
        state=state_text(report),
        sections=sections(report),
        facts=[fact.partition(": ") for fact in facts(report)],
        figures={heading: Markup(svg) for heading, svg in figures(report).items()},
    )
