"""Numbers -> tables, plots, HTML, progress on a terminal.

This package computes no results and reads no run folders: it receives plain dataclasses (``report.Report``) whose
accuracies are fractions, and only here are they turned into percent.
"""
