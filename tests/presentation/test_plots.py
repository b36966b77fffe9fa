"""Figures: valid SVG, deterministic, nothing from elsewhere, ids that do not clash, and the right bars."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from sdclr.mean_std import MeanStd
from sdclr.presentation.plots import PALETTE, arm_colours, class_bars_svg, curves_svg
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
    "bars": lambda name: class_bars_svg(bars(), COLOURS, name),
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
    svg = class_bars_svg(bars(), COLOURS, "a")
    for colour in PALETTE[:2]:
        assert svg.lower().count(f"fill: {colour.lower()}") == 10 + 1, "ten bars and the legend"
    single = class_bars_svg(bars(n=1), COLOURS, "a")
    assert "LineCollection" in svg
    assert "LineCollection" not in single


def test_a_thousand_classes_are_dots_with_few_labels() -> None:
    svg = class_bars_svg(bars(1000), COLOURS, "a")
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
    svg = class_bars_svg(replace(bars(), arms=shown), arm_colours(arms), "a")
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
