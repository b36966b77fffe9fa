"""The page: everything of the report is on it, nothing on it comes from elsewhere, and hostile names stay text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sdclr.presentation.html import render_html
from sdclr.presentation.tables import (
    COLUMNS,
    ArmBars,
    ArmCurves,
    ClassBars,
    Comparison,
    Estimate,
    Fact,
    Report,
    Row,
    RunRecord,
    SplitCounts,
)

HOSTILE = """"><script>alert('x')</script><img src=x onerror="alert(1)">"""
VOID = {"meta", "br", "link", "img", "input", "hr"}


def report(word: str = "SDCLR") -> Report:
    """``word`` stands wherever a text from a run folder is shown."""
    arms = ("SimCLR", word)
    values = {column.key: Estimate(0.5, 0.01, 2) for column in COLUMNS}
    bars = [ArmBars(arm, [0.5] * 3, [0.1] * 3, 2) for arm in arms]
    return Report(
        title=f"SimCLR against {word}",
        description=f"Trained on {word}.",
        group_convention="thirds",
        dataset=word,
        protocol=word,
        chance=0.1,
        arms=arms,
        rows=[Row("linear", arm, 2, values) for arm in arms],
        comparisons=[Comparison("linear", "all", "SimCLR", word, 2, (0.01, -0.02, 0.04))],
        facts=[Fact(word, ["-", word])],
        probe_details={"linear": word},
        bars=[ClassBars("linear", [9, 5, 2], ["many", "medium", "few"], 0.1, bars)],
        losses=[ArmCurves(arm, [[(1, 2.0), (2, 1.0)]] * 2) for arm in arms],
        mask_churns=[ArmCurves(word, [[(1, 0.2), (2, 0.1)]])],
        class_names=[word, "b", "c"],
        splits=[SplitCounts(1, word, None, word, word, {"long_tail": [9, 5, 2], "test": [4, 4, 4]})],
        runs=[RunRecord(word, word, 1, 7, word, word, word)],
        versions={"torch": word},
    )


class Page(HTMLParser):
    """Tags in order, ids, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(report())


@pytest.mark.parametrize(
    "text",
    [
        "<title>SimCLR against SDCLR</title>",
        "Trained on SDCLR.",
        "lower is better",
        "no difference shown: +1.00 [-2.00, 4.00] points (95 % t-interval, n = 2 splits)",
        "Accuracy by class frequency",
        "are different quantities",
        "Mask churn",
        "16<br>",
        "9 … 2",
        "50.00 <small>± 1.00</small>",
        "prefers-color-scheme: dark",
    ],
)
def test_everything_is_on_the_page(page: str, text: str) -> None:
    assert text in page


def test_the_page_nests_and_its_ids_are_unique(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.tags.count("svg") == 3
    assert len(parsed.ids) == len(set(parsed.ids))


def test_nothing_comes_from_elsewhere(page: str) -> None:
    without_namespaces = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http" not in without_namespaces
    assert "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert not {"script", "link", "img", "iframe"} & set(Page(page).tags)


def test_hostile_names_stay_text() -> None:
    parsed = Page(render_html(report(HOSTILE)))
    assert not {"script", "img"} & set(parsed.tags)
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert parsed.tags == Page(render_html(report())).tags


def test_a_single_arm_without_curves_makes_a_page() -> None:
    full = report()
    alone = replace(full, arms=["SimCLR"], rows=full.rows[:1], comparisons=[], bars=[], losses=[], mask_churns=[])
    page = render_html(replace(alone, facts=[Fact("epochs", ["3"])]))
    assert "Paired comparisons" not in page
    assert "<svg" not in page
