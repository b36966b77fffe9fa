"""The page: everything of the report is on it, nothing on it comes from elsewhere, and hostile names stay text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from html_page import Page, report
from sdclr.presentation.html import render_html
from sdclr.presentation.pages import allowed
from sdclr.presentation.report import Fact

HOSTILE = """"><script>alert('x')</script><img src=x onerror="alert(1)">"""


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
    assert parsed.tags.count("svg") == 4, "intervals, accuracy by class, loss, mask churn"
    assert len(parsed.ids) == len(set(parsed.ids))


def test_nothing_comes_from_elsewhere(page: str) -> None:
    without_namespaces = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"|http-equiv', "", page)
    assert "http" not in without_namespaces
    assert "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert not {"link", "img", "iframe"} & set(Page(page).tags)


def test_the_only_script_is_the_one_that_the_policy_allows_by_its_hash(page: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert f"script-src {allowed(script)};" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert page.count("<script") == 1


def test_hostile_names_stay_text() -> None:
    parsed = Page(render_html(report(HOSTILE)))
    assert parsed.tags.count("script") == 1, "that of the page"
    assert "img" not in parsed.tags
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert parsed.tags == Page(render_html(report())).tags


def test_a_single_arm_without_curves_makes_a_page() -> None:
    full = report()
    alone = replace(full, arms=["SimCLR"], rows=full.rows[:1], comparisons=[], bars=[], curves=[])
    page = render_html(replace(alone, facts=[Fact("epochs", ["3"])]))
    assert "Paired comparisons" not in page
    assert "<svg" not in page
