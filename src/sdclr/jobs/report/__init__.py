"""JOB run folders -> one report: tables (terminal, Markdown, CSV, LaTeX), a self-contained HTML page."""

from sdclr.jobs.report.evaluated import build_report
from sdclr.jobs.report.figures import WrittenFigures, write_figures
from sdclr.jobs.report.paper import build_paper_table, write_paper_table
from sdclr.jobs.report.unlabelled import (
    build_unlabelled_report,
    has_own_images,
    is_analysed,
    is_examined,
)
from sdclr.jobs.report.writing import require_replaceable, write_report

__all__ = [
    "WrittenFigures",
    "build_paper_table",
    "build_report",
    "build_unlabelled_report",
    "has_own_images",
    "is_analysed",
    "is_examined",
    "require_replaceable",
    "write_figures",
    "write_paper_table",
    "write_report",
]
