"""JOB run folders -> one report: tables (terminal, Markdown, CSV, LaTeX), a self-contained HTML page."""

from sdclr.jobs.report.standard import build_report, write_report

__all__ = ["build_report", "write_report"]
