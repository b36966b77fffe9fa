"""A grid's report printed: what each form says, and that names in it stay names."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from sdclr.mean_std import MeanStd
from sdclr.presentation.grid import (
    CSV_HEADER,
    MEASURES,
    ArmRow,
    ComparedArm,
    GridReport,
    Interval,
    MiningCurve,
    Question,
    Sweep,
    SweepPoint,
    points,
    render_terminal,
    sections,
    to_csv,
    to_json,
    to_markdown,
)
from sdclr.presentation.grid_figures import figures
from sdclr.presentation.grid_page import render_grid_html

HOSTILE = "<b>|=x\n`\x1b[31m"
NAN = Interval(math.nan, math.nan, math.nan)


def report(name: str = "SDCLR") -> GridReport:
    means = dict.fromkeys(MEASURES, MeanStd(0.5, 0.1, 2))
    effect = Interval(1.5, 1.1, 1.9)
    beside = {"few": Interval(-2.0, -4.0, 0.001), "many": NAN}
    compared = ComparedArm(name, effect, 2, 5, 0.3, "helps", beside, 4, 9)
    unknown = ComparedArm("none", NAN, 0, 5, math.nan, "open", beside, None, None)
    cell = dict.fromkeys(CSV_HEADER, 0.5) | {"arm": name, "split": "generated 101"}
    return GridReport(
        grid="small",
        title=name,
        protocol="cached",
        dataset="digits",
        probes={"knn": "kNN"},
        rows=[ArmRow(name, "knn", means, 2, 5)],
        cells=[cell],
        num_done=2,
        num_planned=10,
        num_failed=1,
        failures=[(name, "no images")],
        asked=Question("Does it?", "SimCLR", "kNN", "All", 1.0, 2, [compared, unknown]),
        sweep=Sweep(
            "method.prune_ratio",
            "All",
            [SweepPoint(name, 0.5, Interval(50.0, 48.0, 52.0), 2), SweepPoint("b", 0.9, NAN, 0)],
        ),
        mining=[MiningCurve(name, "disagreement", [[(1, 0.5), (2, 0.6)], [(1, 0.4), (2, 0.8)]])],
        hardware=["CPU"],
        versions=["sdclr 0.1.0"],
        seconds=3725.0,
        command="sdclr grid x.yaml",
        notes=[],
    )


def test_points_have_a_sign_and_no_negative_zero() -> None:
    assert points(Interval(1.234, 0.5, 2.0)) == "+1.23 [+0.50, +2.00]"
    assert points(Interval(-0.001, -1.0, 0.001)) == "+0.00 [-1.00, +0.00]"
    assert points(Interval(2.0, math.nan, math.nan)) == "+2.00"
    assert points(NAN) == "-"


def test_every_form_has_the_interval_the_verdict_the_rule_and_the_need() -> None:
    console = Console(file=io.StringIO(), width=200)
    render_terminal(report(), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for text in (printed, to_markdown(report()), render_grid_html(report())):
        flat = " ".join(text.split())
        for words in ("helps", "97.5 %", "takes 4 cells", "of 0.5 takes 9", "2 of 5", "1:02:05"):
            assert words in flat
        assert "1.50" in flat
        assert "0.600 ± 0.200" in flat or "0.700 ± 0.100" in flat


def test_json_and_csv_hold_every_number_and_no_nan() -> None:
    content = json.loads(to_json(report()))
    assert content["asked"]["arms"][0]["effect"] == {"mean": 1.5, "low": 1.1, "high": 1.9}
    assert content["asked"]["arms"][1]["effect"]["mean"] is None
    assert to_csv(report()).splitlines()[0] == ",".join(CSV_HEADER)


def test_names_stay_names_in_every_form() -> None:
    hostile = report(HOSTILE)
    console = Console(file=io.StringIO(), width=200)
    render_terminal(hostile, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31m" not in printed
    page = render_grid_html(hostile)
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "<b>" not in to_markdown(hostile)
    assert len(to_csv(hostile).splitlines()) == 2
    assert "\x1b" not in to_csv(hostile)


def test_the_figures_are_sound_and_show_only_what_is_there() -> None:
    drawn = figures(report())
    assert list(drawn) == ["Against SimCLR", "Sweep of method.prune_ratio", "Mining signal"]
    for svg in drawn.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert drawn == figures(report()), "the same bytes for the same input"


@pytest.mark.parametrize("n", [1, 12])
def test_few_and_many_arms_fit_a_figure(n: int) -> None:
    found = report()
    assert found.asked is not None
    arms = [found.asked.arms[0]] * n
    asked = Question("", "SimCLR", "kNN", "All", 1.0, n, arms)
    assert "<svg" in figures(GridReport(**{**vars(found), "asked": asked}))["Against SimCLR"]


@pytest.mark.parametrize("width", [40, 80, 110, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    found = report()
    stream = io.StringIO()
    render_terminal(found, Console(file=stream, width=width))
    printed = stream.getvalue()
    assert "…" not in printed
    for _, _, rows, _ in sections(found):
        for word in (word for row in rows for text in row for word in text.split()):
            assert word in printed, word
