"""The published numbers of the paper's systems, each with its trustworthiness.

Accuracies are fractions. Source: Jiang et al., "Self-Damaging Contrastive Learning", ICML 2021, arXiv 2106.02990. A row
is ``sourced`` if the figures were read in an opened source, and ``as reported, unverified`` if they were recalled and
only checked for consistency (the class-weighted mean of the groups reproduces "All"). No own measurements are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Trust = Literal["sourced", "as reported, unverified"]
Arm = tuple[str, str]
"""(method, subset): ("simclr", "balanced") is SimCLR on D_b, ("sdclr", "long_tail") SDCLR on D_i."""


@dataclass(frozen=True)
class PublishedRow:
    """One cell of the paper's tables: means over the splits; None if a group was not reported."""

    all: float
    many: float | None
    medium: float | None
    few: float | None
    trust: Trust


def _row(numbers: str, trust: Trust = "as reported, unverified") -> PublishedRow:
    values = [round(float(number) / 100, 4) for number in numbers.split()]
    many, medium, few = values[1:] or (None, None, None)
    return PublishedRow(values[0], many, medium, few, trust)


PROTOCOLS = ("sdclr", "authors_classifier")
"""Protocols of the published numbers: the paper's probes, or the classifiers that the authors trained that way."""

GROUPS = {
    "cifar10": "thirds",
    "cifar100": "thirds",
    "imagenet100": "thresholds",
    "imagenet_lt_exp": "thresholds",
}

PUBLISHED: Mapping[tuple[str, str], Mapping[Arm, PublishedRow]] = {
    ("cifar10", "linear"): {
        ("simclr", "balanced"): _row("80.88"),
        ("simclr", "long_tail"): _row("75.55 78.18 76.23 71.37", "sourced"),
        ("sdclr", "long_tail"): _row("82.00 86.44 81.84 76.23", "sourced"),
    },
    ("cifar10", "few_shot"): {
        ("simclr", "balanced"): _row("74.57"),
        ("simclr", "long_tail"): _row("67.08 76.07 67.97 54.21"),
        ("sdclr", "long_tail"): _row("70.47 76.57 70.01 62.79"),
    },
    ("cifar100", "linear"): {
        ("simclr", "balanced"): _row("46.69"),
        ("simclr", "long_tail"): _row("47.11 50.10 47.78 43.36"),
        ("sdclr", "long_tail"): _row("55.48 58.54 55.70 52.10"),
    },
    ("cifar100", "few_shot"): {
        ("simclr", "balanced"): _row("24.89"),
        ("simclr", "long_tail"): _row("22.96 30.72 21.93 15.99"),
        ("sdclr", "long_tail"): _row("25.27 29.72 25.41 20.55"),
    },
    ("imagenet100", "linear"): {
        ("simclr", "balanced"): _row("66.74"),
        ("simclr", "long_tail"): _row("65.46 69.54 63.71 59.69"),
        ("sdclr", "long_tail"): _row("66.48 70.10 65.04 60.92"),
    },
    ("imagenet100", "few_shot"): {
        ("simclr", "balanced"): _row("45.84"),
        ("simclr", "long_tail"): _row("42.16 48.36 39.00 35.23"),
        ("sdclr", "long_tail"): _row("42.38 48.31 39.17 36.46"),
    },
    ("imagenet_lt_exp", "linear"): {
        ("simclr", "balanced"): _row("57.42"),
        ("simclr", "long_tail"): _row("57.43"),
    },
    ("imagenet_lt_exp", "few_shot"): {
        ("simclr", "balanced"): _row("32.45"),
        ("simclr", "long_tail"): _row("32.3"),
    },
}
"""(data set, probe) -> arm -> the published row."""
