"""Names on a page stay text, whatever they are: the same skeleton of tags, and nothing that runs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import jinja2
import pytest

from html_page import Page, report
from sdclr.presentation import pages
from sdclr.presentation.html import render_html
from sdclr.presentation.pages import allowed, source

FRAGMENTS = [
    "<script>alert(1)</script>",
    "</title>",
    "</style>",
    "</svg>",
    "-->",
    "<!--",
    "]]>",
    "<![CDATA[",
    "{{ 7*7 }}",
]
FRAGMENTS += [
    "{% raw %}",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "&#60;",
    "&quot;",
    "$x$",
]
FRAGMENTS += [
    '" onmouseover="alert(1)',
    "' onload='x",
    "<svg/onload=alert(1)>",
    "<iframe src=//x>",
    "</table>",
    "\\",
    "%",
]
FRAGMENTS += [
    "<",
    ">",
    "&",
    '"',
    "'",
    "`",
    "\n",
    "\t",
    "\u2028",
    "\u202e",
    "ä",
    "名",
    "🦊",
    "a" * 40,
    "_",
    "^",
    "{",
    "}",
    "$",
]
NAMED = [
    "<script>alert(1)</script>",
    "</title><script>1</script>",
    '" onmouseover="alert(1)',
    "{{ 7*7 }}{% raw %}",
]
NAMED += [
    "</svg><script>1</script>",
    "<!-- ",
    "]]><x/>",
    "$\\frac{1}{0}$",
    "&lt;b&gt;",
    "a'b\"c`d",
    "\u202e<b>",
    "</style><p>",
]


def generated(seed: int) -> str:
    rng = random.Random(seed)
    # longer ones take two lines
    word = "".join(rng.choice(FRAGMENTS) for _ in range(rng.randint(1, 5)))[:90]
    # a label of white space is not drawn, so the tags would be others
    return word if word.strip() else "blank"


@pytest.fixture(scope="module")
def skeleton() -> list[str]:
    return Page(render_html(report())).tags


def check(word: str, skeleton: list[str]) -> None:
    text = render_html(report(word))
    page = Page(text)
    assert page.tags == skeleton
    assert page.open == []
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    # one script, the page's own: the policy lets no other run
    assert page.tags.count("script") == 1
    assert text.count(f"<script>{source('report.js')}</script>") == 1
    assert f"script-src {allowed(source('report.js'))};" in text
    assert not [
        href for href in re.findall(r'href="([^"#][^"]*)"', text) if href[:9] != "data:text"
    ]
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "javascript:" not in set(page.ids)


@pytest.mark.journeys
@pytest.mark.parametrize("word", NAMED)
def test_a_hostile_name_stays_text(word: str, skeleton: list[str]) -> None:
    check(word, skeleton)


@pytest.mark.slow
def test_five_hundred_generated_names_stay_text(skeleton: list[str]) -> None:
    for seed in range(500):
        check(generated(seed), skeleton)


def test_a_page_that_does_not_escape_is_noticed(
    monkeypatch: pytest.MonkeyPatch, skeleton: list[str]
) -> None:
    environment: Callable[..., jinja2.Environment] = jinja2.Environment
    monkeypatch.setattr(
        pages, "Environment", lambda **keywords: environment(**keywords | {"autoescape": False})
    )
    monkeypatch.setattr(pages, "_environment", pages._environment.__wrapped__)  # none is kept
    with pytest.raises(AssertionError):
        check(NAMED[0], skeleton)
