"""The reports as a reader has them, in Chromium: usable by everybody, silent, and nothing sticks out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from browsers import DESKTOP, PHONE, open_page, serious_findings, sideways
from html_page import report
from mined_images import HOSTILE_NAMES, digits
from sdclr.presentation.html import render_html, render_unlabelled_html
from sdclr.presentation.profile import CollectionProfile, Interval
from sdclr.presentation.profile_page import render_profile_html
from sdclr.presentation.report import CURVES, ArmCurves, Curves, RunRecord
from sdclr.presentation.unlabelled import (
    ImageList,
    Measure,
    Picture,
    PictureRow,
    Reason,
    UnlabelledReport,
    UnlabelledRun,
)

pytestmark = pytest.mark.tools


def unlabelled(word: str) -> UnlabelledRun:
    """``word`` stands wherever a text from a run folder is shown."""
    picture = f"data:image/jpeg;base64,{base64.b64encode(digits()[1][0]).decode()}"
    row = PictureRow([Picture(word, picture, "0.93")] * 6)
    return UnlabelledRun(
        title=word,
        description=f"Trained on {word}.",
        verdict="The features spread out.",
        measures=[Measure("found", "Found again", "of two views", 0.2, 0.01, 0.9, 0.02, True)],
        why_not_examined="",
        why_no_comparison="",
        num_images=1234,
        num_sampled=500,
        curves=[Curves(CURVES["loss"], [ArmCurves(word, [[(1, 2.0), (2, 1.0)]])])],
        gallery=[row] * 3,
        views=[PictureRow([Picture(word, picture, "view")] * 3)] * 2,
        lists=[ImageList(f"2 files left out of {word}", [word, word], 7)],
        choices=[Reason("views.size", word, word)],
        settings=[("views.size", word)],
        record=RunRecord(word, word, 1, 7, word, word, word),
        hardware=word,
        versions={"torch": word},
    )


def evaluated_page(word: str) -> str:
    return render_html(report(word), [unlabelled(word)])


def unlabelled_page(word: str) -> str:
    return render_unlabelled_html(UnlabelledReport([unlabelled(word)] * 2))


def profile_page(word: str) -> str:
    wide = Interval(100.0, 14.0, float("inf"), is_known=False)
    profile = CollectionProfile(
        title=word,
        num_images=1234,
        modes=wide,
        rare_modes=wide,
        effective_modes=Interval(5.0, 2.5, 14.6, is_known=False),
        gini=0.4,
        copies=0.02,
        junk={"blank": 0.001},
        sizes=[900, 300, 30, 3, 1],
        largest=[word, "b.jpg"],
        rarest=[word],
        num_answers=12,
    )
    return render_profile_html(profile, {"b.jpg": base64.b64encode(digits()[1][0]).decode("ascii")})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("word", ["SDCLR", *HOSTILE_NAMES[1:3], HOSTILE_NAMES[-1]], ids=range(4))
@pytest.mark.parametrize("page_of", [evaluated_page, unlabelled_page, profile_page])
def test_everybody_can_read_a_report_and_nothing_sticks_out(
    browser: Any, tmp_path: Path, page_of: Any, word: str, size: tuple[int, int], scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(word), encoding="utf-8")
    with open_page(browser, path, size, scheme) as page:
        assert sideways(page) == 0
        assert serious_findings(page) == []
        wider = (  # on a phone, where they are stacked
            "[...document.querySelectorAll('.facts.stack, .stack:has(.whole)')].map("
            "(one) => one.parentElement.scrollWidth - one.parentElement.clientWidth)"
        )
        assert size == DESKTOP or max(page.evaluate(wider), default=0) <= 0
