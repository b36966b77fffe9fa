from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from sdclr.workflows.demo import demo

pytestmark = pytest.mark.usefixtures("light_figures")

TINY = ("backbone.width=2", "views.size=8", "epochs=1", "batch_size=200")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.external += [
            value
            for name, value in attrs
            if name in ("src", "href") and value and not value.startswith(("#", "data:"))
        ]


@pytest.mark.slow
def test_the_demo_compares_both_methods_and_skips_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=120)
    page = demo(tmp_path / "demo", num_splits=2, overrides=TINY, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("SimCLR", "SDCLR", "Many", "Medium", "Few", "Std", "All", "95 %"):
        assert word in text
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert tags.seen.count("svg") >= 4
    assert not tags.external, "the page stands alone"
    own = (tmp_path / "demo/sdclr-split1-seed10/report.html").read_text(encoding="utf-8")
    assert "Map of the features" in own, "one run has a page of its own"
    monkeypatch.setattr(
        "sdclr.jobs.evaluate.evaluate", lambda *_, **__: pytest.fail("measured twice")
    )
    demo(tmp_path / "demo", num_splits=2, overrides=TINY, console=console)
