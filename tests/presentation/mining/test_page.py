"""The page without a browser: what is in it, and that nothing in it comes from elsewhere or runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from html_page import Page
from mined_images import collection, digits, hostile
from sdclr.presentation.mined import MinedImages, RankingQuality
from sdclr.presentation.mining.page import MOST_PICTURES, pictured_rows, render_mined_html
from sdclr.presentation.pages import MARK


@cache
def page_of_digits() -> str:
    return render_mined_html(*digits(), top=200)


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def numbers(text: object, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype=kind)


def test_the_page_is_known_for_ours() -> None:
    assert page_of_digits().startswith(MARK)


def test_verdict_order_score_and_remarks_are_on_the_page() -> None:
    mined, _ = digits()
    page = page_of_digits()
    for text in (
        mined.title,
        mined.order_name,
        mined.score_name,
        mined.quality.sentence,
        *mined.remarks,
    ):
        assert text in page
    assert "<strong>Better than chance.</strong>" in page
    assert "360 images of /photos in 40 groups; 12 copies folded" in page


@pytest.mark.parametrize(
    ("verdict", "words"), [(False, "No better than chance."), (None, "Quality not known.")]
)
def test_the_page_says_when_the_ranking_is_not_shown_to_work(
    verdict: bool | None, words: str
) -> None:
    mined, pictures = digits(60)
    page = render_mined_html(
        replace(mined, quality=RankingQuality(verdict, "Because.")), pictures, top=9
    )
    assert f"<strong>{words}</strong> Because." in page


def test_a_ranking_by_something_else_is_not_called_rarity() -> None:
    mined, pictures = digits(60)
    page = render_mined_html(replace(mined, ranks_rarity=False), pictures, top=9)
    assert "higher comes first" in page
    assert not re.search("rarer|Rarest|>rare<", page)


def test_the_policy_allows_this_script_and_this_style_alone() -> None:
    page = page_of_digits()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert (len(script), len(style)) == (1, 1)
    for text in (*script, *style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"&#39;sha256-{digest}&#39;" in policy[1] or f"'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src 'none';")


@pytest.mark.parametrize("made", [digits, hostile])
def test_the_page_nests_its_ids_are_unique_and_nothing_comes_from_elsewhere(made: object) -> None:
    assert callable(made)
    page = render_mined_html(*made(), top=200)
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.tags.count("script") == 2
    assert not {"link", "iframe", "object", "embed"} & set(parsed.tags)
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert not {"href"} & parsed.attributes or set(re.findall(r' href="([^"]*)', page)) <= {
        "#sheet-title",
        "#all-title",
    }
    page.encode("utf-8")


def test_the_data_are_those_of_the_collection() -> None:
    mined, _ = hostile()
    data = data_of(render_mined_html(*hostile(), top=200))
    assert data["names"] == mined.names
    np.testing.assert_array_equal(numbers(data["score"], "<f8"), mined.score)
    np.testing.assert_array_equal(numbers(data["rank"], "<i4"), mined.rank)
    np.testing.assert_array_equal(numbers(data["group"], "<i4"), mined.group)
    np.testing.assert_array_equal(numbers(data["groupScore"], "<f8"), mined.group_score)
    np.testing.assert_array_equal(numbers(data["duplicateOf"], "<i4"), mined.duplicate_of)
    np.testing.assert_array_equal(numbers(data["sheet"], "<i4"), mined.sheet)
    np.testing.assert_array_equal(numbers(data["place"], "<f4").reshape(-1, 2), mined.place)
    np.testing.assert_array_equal(numbers(data["junk"], "<i4") != 0, mined.is_junk)


def test_the_first_groups_are_there_without_the_script_and_their_pictures_are_not_there_twice() -> (
    None
):
    mined, pictures = digits()
    page = page_of_digits()
    rows = [int(row) for row in re.findall(r'class="tile" data-row="(\d+)"', page)]
    assert rows == mined.sheet[: len(rows)].tolist()
    assert len(rows) >= 100
    held = data_of(page)["pictures"]
    assert isinstance(held, dict)
    assert not set(held) & {str(row) for row in rows}
    assert len(held) + len(rows) == len(pictures)
    assert page.count(base64.b64encode(pictures[rows[0]]).decode()) >= 1


def test_pictures_are_asked_for_the_sheet_then_junk_then_copies_and_never_too_many() -> None:
    mined, _ = digits()
    rows = pictured_rows(mined, top=100)
    assert rows[:100].tolist() == mined.sheet[:100].tolist()
    assert set(np.flatnonzero(mined.is_junk)) <= set(rows.tolist())
    assert len(set(rows.tolist())) == len(rows)
    assert len(pictured_rows(large(), top=5000)) == MOST_PICTURES


def large() -> MinedImages:
    features = np.random.default_rng(0).normal(size=(1200, 2))
    return collection([f"{row}.jpg" for row in range(1200)], features)


def test_pages_of_few_images_of_no_pictures_and_of_a_top_beyond_the_end_are_pages() -> None:
    for count, top in ((2, 1), (3, 0), (4, 10**9)):
        features = np.random.default_rng(0).normal(size=(count, 2))
        mined = collection([f"{row}.jpg" for row in range(count)], features)
        assert Page(render_mined_html(mined, {}, top=top)).open == []


def test_the_page_of_the_same_collection_is_the_same_text() -> None:
    assert render_mined_html(*digits(), top=200) == page_of_digits()
