"""The files of a grid's report: their places, which existing files they may replace, and writing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sdclr.errors import ConfigError
from sdclr.presentation.grid import GridReport
from sdclr.safe_text import shown
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import make_folder, storage_errors
from sdclr.storage.output_files import begins_with, lexists
from sdclr.workflows.grid.cells import GridCells

SVG_MARK = "<svg "
FIGURES = {kind: f"grid-{kind}.svg" for kind in ("against", "sweep", "mining")}
"""First word of a heading -> the file of its figure."""


def write_grid_report(cells: GridCells, *, console: Console | None = None) -> GridReport:
    """Build the report from records, print it, and write OUT/grid.md, .csv, .json, .html and its figures.

    Figures of an earlier report that this one does not have are removed.
    """
    from sdclr.jobs.report.files import claimed, deliver
    from sdclr.presentation.grid import render_terminal
    from sdclr.presentation.grid_figures import figures
    from sdclr.workflows.grid.results import build_grid_report

    make_folder(cells.out)
    report = build_grid_report(cells)
    drawn = figures(report)
    names = {heading: FIGURES[heading.partition(" ")[0].lower()] for heading in drawn}
    formats = report_formats(names)
    for heading, svg in drawn.items():
        formats[names[heading]] = _figure_format(names[heading], svg)
    wanted = {"terminal", *formats}
    targets = _report_places(cells, formats)
    with claimed(targets):
        deliver(report, wanted, render_terminal, formats, targets, console)
    for name in set(FIGURES.values()) - set(names.values()):
        # another grid's, or of arms that were removed
        if begins_with(cells.out / name, SVG_MARK):
            with storage_errors(cells.out):
                (cells.out / name).unlink()
    return report


def _figure_format(name: str, svg: str) -> Any:
    from sdclr.jobs.report.files import FileFormat

    def render(_: GridReport) -> str:
        return svg

    return FileFormat(name.removeprefix("grid"), render, SVG_MARK)


def report_formats(figures: Mapping[str, str]) -> dict[str, Any]:
    """The files of a report. ``figures``: heading of a table -> name of the figure's file."""
    from sdclr.jobs.report.files import FileFormat
    from sdclr.presentation import grid as presentation
    from sdclr.presentation.grid_page import render_grid_html
    from sdclr.presentation.pages import MARK

    def markdown(report: GridReport) -> str:
        return presentation.to_markdown(report, figures)

    return {
        "markdown": FileFormat(".md", markdown, presentation.MARKDOWN_MARK),
        "csv": FileFormat(".csv", presentation.to_csv, ",".join(presentation.CSV_HEADER)),
        "json": FileFormat(".json", presentation.to_json, presentation.JSON_MARK),
        "html": FileFormat(".html", render_grid_html, MARK),
    }


def require_report_places(cells: GridCells) -> None:
    """Raise ConfigError, before any work, if a foreign file or another grid's report would be replaced."""
    formats = report_formats({})
    _report_places(cells, formats | {name: _figure_format(name, "") for name in FIGURES.values()})


def _report_places(cells: GridCells, formats: Mapping[str, Any]) -> dict[str, Path | None]:
    from sdclr.jobs.report.files import may_be_replaced, places

    if not cells.out.is_dir():
        return {}
    if (other := _grid_reported_in(cells.out)) not in (None, cells.grid.name):
        raise ConfigError(
            f"{shown(cells.out)} has the report of the grid {shown(str(other))}, and this one is "
            f"{shown(cells.grid.name)}. Choose another --out, or remove {shown(cells.out / 'grid.json')}."
        )
    for name, kind in formats.items():
        target = cells.out / f"grid{kind.suffix}"
        if lexists(target) and not may_be_replaced(target, kind):
            raise ConfigError(
                f"{shown(target)} is not of sdclr grid, and the report's {name} would take its place. Move it, or "
                "choose another --out."
            )
    return places(set(formats), formats, cells.out, "grid", overwrite=False, ours=True)


def _grid_reported_in(folder: Path) -> str | None:
    """The name of the grid whose report is in this folder; None if there is none, or it has no name."""
    try:
        content = read_json_file(folder / "grid.json")
    except (OSError, ValueError):
        return None
    name = content.get("grid") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None
