"""Figures as files: each as SVG, as PNG and as the CSV of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from sdclr.presentation.drawings import Figure


def figure_files(figures: Sequence[Figure]) -> dict[str, bytes]:
    """Name of a file -> its content."""
    from sdclr.presentation import plots  # matplotlib, which only figures need

    files: dict[str, bytes] = {}
    for figure in figures:
        title = figure.title
        files[f"{figure.name}.svg"] = plots.svg_file(figure.drawing, title).encode()
        files[f"{figure.name}.png"] = plots.png_of(figure.drawing, title)
        files[f"{figure.name}.csv"] = figure.to_csv().encode()
    return files
