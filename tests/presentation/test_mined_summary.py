"""The summary says what was found in lines that forge nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sdclr.presentation.mined import MinedImages, RankingQuality
from sdclr.presentation.mined_summary import summary


def mined(names: list[str], **changes: object) -> MinedImages:
    n = len(names)
    facts: dict[str, object] = {
        "title": "t",
        "names": names,
        "root": "/photos",
        "score_name": "density",
        "order_name": "groups",
        "score": np.arange(n, dtype=np.float64)[::-1],
        "rank": np.arange(1, n + 1),
        "components": {},
        "group": np.arange(n) // 2,
        "group_score": np.linspace(1, 0, (n + 1) // 2),
        "duplicate_of": np.arange(n),
        "junk": {"blank": np.arange(n) == n - 1},
        "sheet": np.arange(n - 1),
        "place": np.zeros((n, 2), np.float32),
        "quality": RankingQuality(None, "It cannot be said."),
    }
    return MinedImages(**(facts | changes))  # type: ignore[arg-type]


def test_groups_are_named_by_their_first_image_rarest_first() -> None:
    lines = summary(mined([f"{i}.jpg" for i in range(5)], remarks=["Two are gone."])).splitlines()
    assert lines == [
        "5 images in 3 groups, 0 folded as copies, 1 set aside as suspected junk",
        "rarest by density:",
        "  1  2 images look alike, as 0.jpg",
        "  0.5  2 images look alike, as 2.jpg",
        "Two are gone.",
        "It cannot be said.",
    ]


def test_names_forge_no_line_and_likeness_is_not_called_rarity() -> None:
    text = summary(
        mined(["a\nerror: forged\x1b[2J", "b"], score_name="likeness", ranks_rarity=False)
    )
    assert "\x1b" not in text
    assert not any(line.startswith("error:") for line in text.splitlines())
    assert "first by likeness:" in text


def test_numbers_of_another_order_are_not_called_by_the_score() -> None:
    found = mined(["a", "b", "c"], rarest_first=False)
    lines = summary(found).splitlines()
    by_likeness = replace(found, score_name="likeness", ranks_rarity=False)
    assert summary(by_likeness).splitlines()[1] == lines[1]
    assert lines[1] == (
        "first of the order that shows many kinds early, with how far each is from those before it:"
    )
    assert lines[2] == "  1  2 images look alike, as a"
