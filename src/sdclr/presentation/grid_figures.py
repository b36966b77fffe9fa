"""Figures of a grid, as inline SVG: effects with their intervals, a sweep, the mining signal by epoch."""

from __future__ import annotations

import math

from matplotlib import rc_context

from sdclr.presentation.grid import GridReport, Question, Sweep
from sdclr.presentation.plots import (
    _INK,
    _STYLE,
    PALETTE,
    _canvas,
    _in_legend,
    _svg,
    arm_colours,
    curves_svg,
)
from sdclr.presentation.report import ArmCurves

MINING_COLUMN = "disagreement"


def effects_svg(question: Question, name: str = "effects") -> str:
    """Each arm's paired difference with the decisive interval; the band is -d .. +d.

    ``name`` prefixes every id, so that several figures can share a page.
    """
    with rc_context(_STYLE):
        figure, axes = _canvas(0.9 + 0.42 * len(question.arms))
        axes.axvspan(-question.d, question.d, color=_INK, alpha=0.08, linewidth=0)
        axes.axvline(0, color=_INK, linewidth=0.8)
        for place, arm in enumerate(question.arms):
            effect = arm.effect
            if math.isnan(effect.mean):
                continue
            if not math.isnan(effect.low):
                ends = [[effect.mean - effect.low], [effect.high - effect.mean]]
                axes.errorbar([effect.mean], [place], xerr=ends, fmt="none", ecolor=_INK, capsize=3)
            axes.plot([effect.mean], [place], "o", color=PALETTE[0])
        axes.set_yticks(
            range(len(question.arms)),
            [f"{_in_legend(arm.arm)} (n = {arm.n})" for arm in question.arms],
        )
        axes.set(ylim=(len(question.arms) - 0.5, -0.5))
        axes.set(xlabel=f"{question.metric} less that of {_in_legend(question.baseline)}, points")
        return _svg(figure, name)


def sweep_svg(sweep: Sweep, name: str = "sweep") -> str:
    """Mean accuracy of each arm against the setting, with its 95 % t-interval."""
    with rc_context(_STYLE):
        figure, axes = _canvas(3.2)
        found = [point for point in sweep.points if not math.isnan(point.accuracy.mean)]
        axes.plot(
            [point.value for point in found],
            [point.accuracy.mean for point in found],
            "o-",
            color=PALETTE[0],
            linewidth=1.5,
        )
        for point in found:
            accuracy = point.accuracy
            if not math.isnan(accuracy.low):
                ends = [[accuracy.mean - accuracy.low], [accuracy.high - accuracy.mean]]
                axes.errorbar(
                    [point.value],
                    [accuracy.mean],
                    yerr=ends,
                    fmt="none",
                    ecolor=PALETTE[0],
                    capsize=3,
                )
        axes.set(xlabel=sweep.setting, ylabel=f"{sweep.measure}, percent")
        axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.8)
        return _svg(figure, name)


def mining_svg(report: GridReport, name: str = "mining") -> str:
    """AUROC of disagreement by epoch: thin lines are runs, thick ones the mean of an arm's runs."""
    arms = [
        ArmCurves(curve.arm, curve.runs) for curve in report.mining if curve.column == MINING_COLUMN
    ]
    colours = arm_colours([arm.arm for arm in arms])
    return curves_svg(arms, colours, "AUROC of disagreement for few", name)


def figures(report: GridReport) -> dict[str, str]:
    """Heading of a table -> its figure."""
    found: dict[str, str] = {}
    if report.asked is not None and any(arm.n for arm in report.asked.arms):
        found[report.asked.heading] = effects_svg(report.asked)
    if report.sweep is not None and any(point.n for point in report.sweep.points):
        found[report.sweep.heading] = sweep_svg(report.sweep)
    if any(curve.column == MINING_COLUMN for curve in report.mining):
        found["Mining signal"] = mining_svg(report)
    return found
