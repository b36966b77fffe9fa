"""JOB run folders -> one report: tables (terminal, Markdown, CSV, LaTeX), a self-contained HTML page."""

from sdclr.jobs.report.paper import build_paper_table, write_paper_table
from sdclr.jobs.report.standard import build_report, require_replaceable, write_report

__all__ = ["build_paper_table", "build_report", "require_replaceable", "write_paper_table", "write_report"]
