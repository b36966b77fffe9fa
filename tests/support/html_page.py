"""A report in which one word stands wherever a text from a run folder is shown, and the tags of the page it makes."""

from __future__ import annotations

from html.parser import HTMLParser

from sdclr.mean_std import MeanStd
from sdclr.presentation.report import (
    COLUMNS,
    CURVES,
    ArmBars,
    ArmCurves,
    ClassBars,
    Comparison,
    Curves,
    Fact,
    Report,
    Row,
    RunRecord,
    SplitCounts,
)

VOID = {"meta", "br", "link", "img", "input", "hr"}


def report(word: str = "SDCLR") -> Report:
    """``word`` stands wherever a text from a run folder is shown."""
    arms = ("SimCLR", word)
    values = {column.key: MeanStd(0.5, 0.01, 2) for column in COLUMNS}
    bars = [ArmBars(arm, [MeanStd(0.5, 0.1, 2)] * 3) for arm in arms]
    return Report(
        title=f"SimCLR against {word}",
        description=f"Trained on {word}.",
        group_convention="thirds",
        dataset=word,
        protocol=word,
        chance=0.1,
        arms=arms,
        probes={word: word},
        rows=[Row(word, arm, 2, values) for arm in arms],
        comparisons=[Comparison(word, "all", "SimCLR", word, 2, (0.01, -0.02, 0.04))],
        facts=[Fact(word, ["-", word])],
        probe_details={word: word},
        bars=[ClassBars(word, [9, 5, 2], ["many", "medium", "few"], 0.1, bars)],
        curves=[
            Curves(CURVES["loss"], [ArmCurves(arm, [[(1, 2.0), (2, 1.0)]] * 2) for arm in arms]),
            Curves(CURVES["mask_churn"], [ArmCurves(word, [[(1, 0.2), (2, 0.1)]])]),
        ],
        class_names=[word, "b", "c"],
        splits=[
            SplitCounts(1, word, None, word, word, {"long_tail": [9, 5, 2], "test": [4, 4, 4]})
        ],
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
