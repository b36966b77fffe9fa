"""JOB run folders -> one report: a table on the terminal, Markdown, CSV, JSON, a self-contained HTML page.

Which report it is depends on whether the runs were evaluated; other modules build its content.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
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
"""The first characters of a page, among which it names its runs."""
MARKS = {
    ".html": html.MARK,
    ".md": tables.MARKDOWN_MARK,
    ".csv": ",".join(paper_table.CSV_HEADER),
    ".tex": paper_table.LATEX_MARK,
    ".json": JSON_MARK,
}
"""Suffix -> the first characters of a file that a workflow writes."""


WhyMissing = Mapping[str, Mapping[str, str]]
"""Run folder -> section of the page -> why it is missing."""


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
    why_missing: WhyMissing | Callable[[], WhyMissing] | None = None,
) -> Report | UnlabelledReport:
    """Build the report and deliver it in each of ``formats``: "terminal", "markdown", "csv", "json", "html".

    If none of the runs was evaluated, it shows what needs no labels; :func:`~sdclr.jobs.examine.examine` adds
    measurements and pictures. For evaluated runs on the user's own images it shows the same below the numbers, unless
    ``only_numbers``. Evaluated runs and others cannot share a report. A damaged evaluation is left out
    with a warning if the runs have no other. The page of a single run always shows this part, with the commands that
    add what is missing; ``why_missing`` (run folder -> section -> words) explains why a section could not be made, or
    is a function that makes sections and returns this, called once the files of the report are claimed.

    Markdown, CSV and JSON are printed unless ``out`` is given; HTML goes to ``out``, by default to RUN/report.html, for
    several runs to report.html in the folder that contains them. ``out`` may be a folder; with several file formats it
    gives the name and each format the suffix, replacing that of another format. An existing file of the user's is
    a ConfigError, unless ``overwrite``; a page of ours under a default name, in a run folder, or with ``ours`` under
    any name, is replaced. Raises StorageError if a file cannot be written.

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
            lambda: build_unlabelled_report(runs, _reasons(why_missing)),
            formats,
            render_terminal,
            _unlabelled_files(_usual_page(runs)),
            out,
            console,
            overwrite=overwrite,
            ours=ours,
        )

    def build() -> EvaluatedReport:
        why = _reasons(why_missing)
        numbers = build_report(runs, protocol, groups)
        parts = [] if only_numbers else _own_parts(runs, numbers, why)
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


def _reasons(why_missing: WhyMissing | Callable[[], WhyMissing] | None) -> WhyMissing:
    return (why_missing() if callable(why_missing) else why_missing) or {}


def _usual_page(runs: Sequence[Path | str]) -> Path:
    """The default place of the page: in the run, or in the folder that contains the runs."""
    folders = [Path(os.path.realpath(run)) for run in runs]
    if len(folders) == 1:
        return folders[0] / "report.html"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / "report.html"


def _require_same_runs(page: Path, runs: Sequence[Path | str]) -> None:
    """Raise ConfigError if the page of other runs, for example of `sdclr reproduce`, would be replaced."""
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


def _own_parts(runs: Sequence[Path | str], numbers: Report, why: WhyMissing) -> list[UnlabelledRun]:
    """What is shown besides the numbers: for runs on the user's own images, and for a single run."""
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
    """Whether there is an evaluation to report; warns of damaged ones if none is sound."""
    damage: list[str] = []
    for run in map(Run, runs):
        for protocol in run.evaluated_protocols():
            try:
                with warnings.catch_warnings():
                    # about single probes: given where they are shown
                    warnings.simplefilter("ignore")
                    run.read_evaluation(protocol)
                return True
            except DataError as error:
                damage.append(str(error))
    for line in damage[:3]:
        warnings.warn(f"{line} Until then the report omits it.", stacklevel=3)
    return False


def require_replaceable(*reports: Path) -> None:
    """Raise ConfigError for an existing file that is not our report; a workflow checks this before hours of work."""
    for path in reports:
        if lexists(path) and not begins_with(path, MARKS[path.suffix]):
            raise ConfigError(
                f"{path} exists and was not written by sdclr; move it away, or choose another --out."
            )
