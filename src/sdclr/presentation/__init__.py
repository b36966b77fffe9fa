"""Numbers -> tables, plots, HTML, progress on a terminal.

This room computes no result and reads no run folder: it is handed plain dataclasses (``report.Report``) whose
accuracies are fractions, and it alone turns them into percent.
"""
