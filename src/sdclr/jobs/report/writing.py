"""JOB run folders -> one report: a table on the terminal, Markdown, CSV, JSON, a self-contained HTML page.

Which report it is depends on whether the runs were evaluated; what is in it, other modules say.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.balancedness import GroupConvention
from sdclr.jobs.report.evaluated import build_report
from sdclr.jobs.report.files import FileFormat, build_and_deliver
from sdclr.jobs.report.unlabelled import (
    build_unlabelled_report,
    has_own_images,
    read_without_labels,
)
from sdclr.presentation import evaluated, html, paper_table, tables
from sdclr.presentation.evaluated import EvaluatedReport
from sdclr.presentation.report import Report
from sdclr.presentation.report_json import JSON_MARK, to_json
from sdclr.presentation.unlabelled import (
    CSV_HEADER,
    UnlabelledReport,
    UnlabelledRun,
    render_terminal,
    to_csv,
    to_markdown,
)
from sdclr.run import Run
from sdclr.safe_text import shown
from sdclr.storage.durable_files import storage_errors
from sdclr.storage.output_files import begins_with, lexists

HEAD_CHARACTERS = 2000
"""Of a page: what it is of stands among its first."""
MARKS = {
    ".html": html.MARK,
    ".md": tables.MARKDOWN_MARK,
    ".csv": ",".join(paper_table.CSV_HEADER),
    ".tex": paper_table.LATEX_MARK,
    ".json": JSON_MARK,
}
"""Suffix -> what a file that a workflow writes begins with."""


def write_report(
    runs: Sequence[Path | str],
    formats: set[str],
    out: Path | None = None,
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    console: Console | None = None,
    *,
    overwrite: bool = False,
    ours: bool = False,
    only_numbers: bool = False,
    why_missing: Mapping[str, Mapping[str, str]] | None = None,
) -> Report | UnlabelledReport:
    """Build the report and deliver it in each of ``formats``: "terminal", "markdown", "csv", "json", "html".

    Of runs of which none was evaluated it shows what needs no labels; their :func:`~sdclr.jobs.examine.examine` brings
    the measurements and pictures. Of evaluated runs on somebody's own images it shows that below the numbers, unless
    ``only_numbers``. Evaluated runs and others do not go into one report. An evaluation that is damaged is left out
    with a warning where the runs have no other. The page of a single run shows that of any run, and of what it lacks
    says what brings it; ``why_missing`` (run folder -> section -> words) why it could not be made.

    Markdown, CSV and JSON are printed unless ``out`` is given; HTML goes to ``out``, else to RUN/report.html, for
    several runs to report.html in the folder that holds them. ``out`` may be a folder; with several file formats it
    lends its name and each format its suffix, in place of that of another format. A file of the user's that exists is
    a ConfigError, unless ``overwrite``; a page of ours under a default name, in a run folder, or with ``ours`` under
    any name, is replaced. Raises StorageError where a file cannot be written.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> evaluation = sdclr.evaluate(run, probes=["linear", "knn"])
    >>> report = sdclr.write_report([run], {"html"}, out=Path("report.html"), overwrite=True)
    html report: report.html
    """
    if not runs:
        raise ConfigError("report needs at least one run folder.")
    if out is None and "html" in formats and not overwrite:
        _require_same_runs(_usual_page(runs), runs)
    if protocol is None and not _are_evaluated(runs):
        return build_and_deliver(
            lambda: build_unlabelled_report(runs, why_missing),
            formats,
            render_terminal,
            _unlabelled_files(_usual_page(runs)),
            out,
            console,
            overwrite=overwrite,
            ours=ours,
        )

    def build() -> EvaluatedReport:
        numbers = build_report(runs, protocol, groups)
        parts = [] if only_numbers else _own_parts(runs, numbers, why_missing or {})
        return EvaluatedReport(numbers, parts)

    delivered = build_and_deliver(
        build,
        formats,
        evaluated.render_terminal,
        _evaluated_files(_usual_page(runs)),
        out,
        console,
        overwrite=overwrite,
        ours=ours,
    )
    return delivered.numbers


def _usual_page(runs: Sequence[Path | str]) -> Path:
    """Where the page goes unless somebody says so: into the run, or the folder that holds the runs."""
    folders = [Path(os.path.realpath(run)) for run in runs]
    if len(folders) == 1:
        return folders[0] / "report.html"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / "report.html"


def _require_same_runs(page: Path, runs: Sequence[Path | str]) -> None:
    """ConfigError where the page of other runs would be replaced, of `sdclr reproduce` for example."""
    if len(runs) == 1 or not begins_with(page, html.MARK):
        return
    with storage_errors(page), page.open(encoding="utf-8", errors="replace") as file:
        theirs = html.runs_of_page(file.read(HEAD_CHARACTERS))
    if theirs not in (None, html.digest_of_runs(runs)):
        raise ConfigError(
            f"{shown(page)} is the report of other runs. Give --out FILE, or --overwrite to replace it."
        )


def _unlabelled_files(page: Path) -> dict[str, FileFormat[UnlabelledReport]]:
    return {
        "markdown": FileFormat(".md", to_markdown, tables.MARKDOWN_MARK),
        "csv": FileFormat(".csv", to_csv, ",".join(CSV_HEADER)),
        "json": FileFormat(".json", to_json, JSON_MARK),
        "html": FileFormat(".html", html.render_unlabelled_html, html.MARK, default=page),
    }


def _evaluated_files(page: Path) -> dict[str, FileFormat[EvaluatedReport]]:
    return {
        "markdown": FileFormat(".md", evaluated.to_markdown, tables.MARKDOWN_MARK),
        "csv": FileFormat(".csv", evaluated.to_csv, ",".join(tables.CSV_HEADER)),
        "json": FileFormat(".json", to_json, JSON_MARK),
        "html": FileFormat(".html", evaluated.render_html, html.MARK, default=page),
    }


def _own_parts(
    runs: Sequence[Path | str], numbers: Report, why: Mapping[str, Mapping[str, str]]
) -> list[UnlabelledRun]:
    """What is shown of each run besides the numbers: of those on somebody's own images, and of a single one."""
    parts = []
    for place in runs:
        run = Run(place)
        if has_own_images(run) or (len(runs) == 1 and run.backbone_path.is_file()):
            label = numbers.arms[0] if len(runs) == 1 else None
            parts.append(
                read_without_labels(
                    run, protocol=numbers.protocol, why_missing=why.get(str(place)), label=label
                )
            )
    return parts


def _are_evaluated(runs: Sequence[Path | str]) -> bool:
    """Whether there is an evaluation to report; damaged ones count where a sound one is there, too."""
    damage: list[str] = []
    for run in map(Run, runs):
        for protocol in run.evaluated_protocols():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of single probes: whoever shows them says so
                    run.read_evaluation(protocol)
                return True
            except DataError as error:
                damage.append(str(error))
    for line in damage[:3]:
        warnings.warn(f"{line} Until then the report omits it.", stacklevel=3)
    return False


def require_replaceable(*reports: Path) -> None:
    """ConfigError for a file that exists and is no report of ours: what a workflow checks before hours of work."""
    for path in reports:
        if lexists(path) and not begins_with(path, MARKS[path.suffix]):
            raise ConfigError(
                f"{path} exists and was not written by sdclr; move it away, or choose another --out."
            )
