"""Figures as files: each as SVG, as PNG and as the CSV of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from sdclr.presentation.drawings import Figure


def file_names(figure: Figure) -> tuple[str, str, str]:
    """The names of the drawing's SVG and PNG, and of its numbers."""
    return f"{figure.name}.svg", f"{figure.name}.png", f"{figure.name}.csv"


def figure_files(figures: Sequence[Figure]) -> dict[str, bytes]:
    """Name of a file -> its content."""
    from sdclr.presentation import plots  # imports matplotlib, which only figures need

    files: dict[str, bytes] = {}
    for figure in figures:
        svg, png, csv = file_names(figure)
        files[svg] = plots.svg_file(figure.drawing, figure.title).encode()
        files[png] = plots.png_of(figure.drawing, figure.title)
        files[csv] = figure.to_csv().encode()
    return files
