"""Pages with empty figures, where drawings are not the point: matplotlib takes seconds for a page.

tests/presentation/test_plots.py and tests/jobs/test_run_page.py are about what is drawn.
"""

from __future__ import annotations

import io

import PIL.Image
import pytest

from sdclr.presentation import plots


def empty_svg(drawing: object, name: str, *, small: bool = False) -> str:
    return f'<svg id="{name}-figure" viewBox="0 0 9 3"></svg>'


def empty_file(drawing: object, title: str) -> str:
    return empty_svg(drawing, title)


def empty_png(drawing: object, title: str, dpi: int = 150) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("L", (9, 3)).save(stream, format="png")
    return stream.getvalue()


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "svg_of", empty_svg)
    monkeypatch.setattr(plots, "svg_file", empty_file)
    monkeypatch.setattr(plots, "png_of", empty_png)
