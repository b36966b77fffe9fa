"""The default score and the default order, chosen with one family of sets left out at a time.

Splits of one data set count as one set. An order is chosen by classes seen in the first 2C images
over random's expectation, a score by the AUROC for the few classes; both as means over the other
families, and reported on the family that was left out.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from rarebench.sets import FAMILIES, family

Cells = list[dict[str, Any]]


class Choice(NamedTuple):
    """What was chosen without one family, and how it does there."""

    left_out: str
    chosen: str
    value: float
    """Of the chosen one on the family that was left out."""
    best: str
    best_value: float
    """Of the best one there, known only afterwards."""


def by_family(cells: Cells, encoder: str, measure: str) -> dict[str, dict[str, float]]:
    """Family -> score -> mean over its splits; ``measure``: auroc_few, or gain (classes seen)."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        if cell["encoder"] == encoder and cell["group"] == "features":
            for name, values in cell["scores"].items():
                value = gain(cell, values) if measure == "gain" else values[measure]
                found.setdefault(family(cell["set"]), {}).setdefault(name, []).append(value)
    means = {}
    for name in FAMILIES:
        if name in found:
            means[name] = {score: statistics.mean(values) for score, values in found[name].items()}
    return means


def gain(cell: dict[str, Any], values: dict[str, Any]) -> float:
    """Classes seen in the first 2C images over random's expectation."""
    return float(values["classes_seen"]["2C"] / cell["chance"]["2C"])


def leave_one_out(means: dict[str, dict[str, float]]) -> list[Choice]:
    """For each family the score that is best on the others."""
    choices = []
    for left_out, here in means.items():
        others = {name: values for name, values in means.items() if name != left_out}
        if others:
            chosen = best(others)
            top = max((name for name in here if name != "random"), key=lambda score: here[score])
            choices.append(Choice(left_out, chosen, here[chosen], top, here[top]))
    return choices


def best(means: dict[str, dict[str, float]]) -> str:
    """The score with the highest mean over the families.

    >>> best({"a": {"x": 0.5, "y": 0.7}, "b": {"x": 0.6, "y": 0.5}})
    'y'
    """
    return ranked(means)[0][0]


def ranked(means: dict[str, dict[str, float]]) -> list[tuple[str, float]]:
    """Scores that every family has, and their mean over the families, the highest first.

    >>> ranked({"a": {"x": 0.5, "y": 0.75}, "b": {"x": 0.5, "y": 0.25, "z": 1.0}})
    [('x', 0.5), ('y', 0.5)]
    """
    scores = set.intersection(*(set(values) for values in means.values())) - {"random"}
    found = [
        (name, statistics.mean(values[name] for values in means.values()))
        for name in sorted(scores)
    ]
    return sorted(found, key=lambda entry: -entry[1])
