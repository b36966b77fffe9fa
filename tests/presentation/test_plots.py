"""Figures: valid SVG, deterministic, nothing from elsewhere, ids that do not clash, and the right bars."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, product
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from sdclr.mean_std import MeanStd
from sdclr.presentation import plots
from sdclr.presentation.drawings import Bars, Figure, Forest, Interval, Layers, Line, Lines
from sdclr.presentation.figure_files import figure_files
from sdclr.presentation.plots import PALETTE, arm_colours, curves_svg, svg_of
from sdclr.presentation.report import ArmBars, ArmCurves, ClassBars

HOSTILE = 'SDCLR "<script>alert(1)</script>" $x_1$ & co'
COLOURS = arm_colours(["SimCLR", HOSTILE])


def bars(num_classes: int = 10, n: int = 3) -> ClassBars:
    third = num_classes // 3
    return ClassBars(
        probe="linear",
        counts=list(range(num_classes, 0, -1)),
        groups=["many"] * (num_classes - 2 * third) + ["medium"] * third + ["few"] * third,
        chance=1 / num_classes,
        arms=[ArmBars(arm, [MeanStd(0.5, 0.1, n)] * num_classes) for arm in COLOURS],
    )


def curves(num_epochs: int = 5) -> list[ArmCurves]:
    runs = [[(epoch, float(run + epoch)) for epoch in range(1, num_epochs + 1)] for run in range(2)]
    return [ArmCurves(arm, runs) for arm in COLOURS]


FIGURES = {
    "bars": lambda name: svg_of(Bars(bars(), COLOURS), name),
    "curves": lambda name: curves_svg(curves(), COLOURS, "Loss", name),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_one_safe_deterministic_svg(figure: str) -> None:
    svg = FIGURES[figure]("a")
    assert svg.startswith("<svg")
    assert svg == FIGURES[figure]("a")
    root = ElementTree.fromstring(svg)
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    assert HOSTILE in "".join(root.itertext()), "a label is shown as it is"
    assert not re.findall(r'(?:href|src)="(?!#)', svg)
    assert "url(#" not in svg.replace("url(#a-", "")
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_ids_of_two_figures_do_not_clash() -> None:
    ids = [re.findall(r'\bid="([^"]+)"', FIGURES[figure](figure)) for figure in FIGURES]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])


def test_every_bar_is_drawn_and_whiskers_need_several_splits() -> None:
    svg = svg_of(Bars(bars(), COLOURS), "a")
    for colour in PALETTE[:2]:
        assert svg.lower().count(f"fill: {colour.lower()}") == 10 + 1, "ten bars and the legend"
    single = svg_of(Bars(bars(n=1), COLOURS), "a")
    assert "LineCollection" in svg
    assert "LineCollection" not in single


def test_a_thousand_classes_are_dots_with_few_labels() -> None:
    svg = svg_of(Bars(bars(1000), COLOURS), "a")
    assert len(svg) < 700_000
    assert svg.count("xtick_") == 20


def test_an_arm_keeps_its_colour_where_others_are_missing() -> None:
    svg = curves_svg(curves()[1:], COLOURS, "Mask churn", "a").lower()
    assert PALETTE[1].lower() in svg
    assert PALETTE[0].lower() not in svg


def test_long_labels_of_many_arms_leave_room_for_the_bars() -> None:
    arms = [f"SDCLR ({'a long setting, ' * 9}{number})" for number in range(5)]
    shown = [ArmBars(arm, [MeanStd(0.5, 0.1, 3)] * 10) for arm in arms]
    # matplotlib warns where there is none
    svg = svg_of(Bars(replace(bars(), arms=shown), arm_colours(arms)), "a")
    left, top, right, bottom = map(float, re.findall(r'viewBox="(.*?)"', svg)[0].split())
    assert (left, top, right) == (0, 0, 648)
    assert bottom > 3.6 * 72


def test_a_single_epoch_and_runs_of_unequal_length_can_be_drawn() -> None:
    assert curves_svg(curves(1), COLOURS, "Loss", "a").startswith("<svg")
    unequal = [ArmCurves("SimCLR", [[(1, 2.0), (2, 1.0)], [(1, 3.0)]])]
    assert curves_svg(unequal, COLOURS, "Loss", "a").startswith("<svg")


@pytest.mark.parametrize("name", ["_arm", "名", "🦊"])
def test_a_name_that_matplotlib_would_leave_out_or_warn_about_is_shown(name: str) -> None:
    svg = curves_svg(
        [ArmCurves(name, [[(1, 2.0), (2, 1.0), (3, 0.5)]])], arm_colours([name]), "Loss", "a"
    )
    assert name in "".join(ElementTree.fromstring(svg).itertext())


def words_that_touch(drawing: object, *, small: bool = False) -> list[tuple[str, str]]:
    """Pairs of texts that overlap, and texts that leave the figure, measured with matplotlib's own font."""
    svg = ElementTree.fromstring(svg_of(drawing, "a", small=small))
    drawn = {text.strip() for text in svg.itertext()}  # ticks beyond an end of the axis are not
    with rc_context(plots._STYLE):
        figure = plots.DRAWN[type(drawing)](drawing, small)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [
            (text.get_text(), text.get_window_extent(canvas.get_renderer()))
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip().split("\n")[0] in drawn - {""}
        ]
    touching = [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])]
    width, height = figure.bbox.size
    leaving = [
        (word, "edge")
        for word, box in boxes
        if not re.fullmatch(r"[−\d.]+", word)  # a number beyond an end of its axis is not drawn
        and (box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1)
    ]
    return touching + leaving


def kinds_of_bars() -> list[object]:
    """Largest class, whether one group has nearly all classes, whether classes have names; two kinds at once."""
    at_once = {(1280, False, True), (130_000, True, False)}
    return [
        pytest.param(*kind, marks=() if kind in at_once else pytest.mark.slow)
        for kind in product((10, 1280, 130_000), (False, True), (True, False))
    ]


@pytest.mark.journeys
@pytest.mark.parametrize(("largest", "lopsided", "named"), kinds_of_bars())
@pytest.mark.parametrize("num_classes", [1, 2, 10, 100, 1000])
def test_no_labels_touch_at_any_number_of_classes(
    num_classes: int, largest: int, lopsided: bool, named: bool
) -> None:
    third = 1 if lopsided else num_classes // 3
    third = third if num_classes > 2 else 0
    groups = ["many"] * (num_classes - 2 * third) + ["medium"] * third + ["few"] * third
    found = ClassBars(
        "linear",
        np.geomspace(largest, 1, num_classes).astype(int).tolist(),
        groups,
        1 / num_classes,
        [ArmBars("SDCLR", [MeanStd(0.5, 0.1, 1)] * num_classes)],
        [f"class of name {index}" for index in range(num_classes)] if named else (),
    )
    assert words_that_touch(Bars(found, COLOURS | {"SDCLR": "#000000"})) == []


def test_words_that_touch_would_be_seen() -> None:
    crowded = Layers({"a": [("x" * 30, 0.5, 9)]}, {"a": "#000000"}, "very long " * 40)
    assert words_that_touch(crowded)


@pytest.mark.parametrize("num_layers", [1, 20, 300])
def test_no_names_of_layers_touch(num_layers: int) -> None:
    layers = [(f"layer{n}.0.downsample.conv", n / num_layers, 9) for n in range(num_layers)]
    drawing = Layers({"a": layers, "b": layers}, {"a": "#000000", "b": "#ffffff"}, "Removed (%)")
    assert words_that_touch(drawing) == []


@pytest.mark.parametrize("num_groups", [1, 6])
def test_no_rows_of_a_forest_touch(num_groups: int) -> None:
    rows = [
        Interval(f"SDCLR (prune ratio 0.{group}) - SimCLR", label, 0.11, -0.3, 0.4, 10_000)
        for group in range(num_groups)
        for label in ("All", "Few", "Std (lower is better)")
    ]
    assert words_that_touch(Forest(rows, "Difference (percentage points)")) == []


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "verdict"),
    [
        (0.01, 0.02, False, "better"),
        (0.01, 0.02, True, "worse"),
        (-0.02, -0.01, True, "better"),
        (-0.01, 0.01, False, "open"),
        (0.00001, 0.02, False, "open"),  # printed as 0.00
    ],
)
def test_an_interval_is_judged_as_it_is_printed(
    low: float, high: float, lower_is_better: bool, verdict: str
) -> None:
    assert Interval("", "", 0.0, low, high, 3, lower_is_better).verdict == verdict


@pytest.mark.parametrize("small", [True, False])
def test_alarms_and_lines_of_many_words_do_not_touch(small: bool) -> None:
    drawing = Lines(
        [Line("SDCLR (method.prune_ratio 0.9, norms own)", "#000000", [[(0, 0.1), (9, 0.2)]] * 2)],
        "Epoch",
        "Images (%)",
        percent=True,
        marks=[(1, "collapsed"), (5, "stale masks"), (9, "collapsed")],
        reference=(0.05, "share of all images"),
    )
    assert words_that_touch(drawing, small=small) == []
    svg = svg_of(drawing, "a", small=small)
    assert "alarm: collapsed" in svg
    assert "(n = 2)" in svg


def test_a_file_of_a_figure_stands_alone() -> None:
    figure = Figure(
        "loss", "Loss & <co>", Lines([Line("a", "#000000", [[(1, 2.5)]])], "Epoch", "L")
    )
    files = figure_files([figure])
    assert list(files) == ["loss.svg", "loss.png", "loss.csv"]
    text = files["loss.svg"].decode()
    ElementTree.fromstring(text.encode())
    assert "Loss &amp; &lt;co&gt;" in text
    assert "currentColor" not in text
    assert files["loss.csv"] == b"line,run,epoch,value\na,1,1,2.5\n"
    assert files == figure_files([figure]), "the same bytes for the same input"
