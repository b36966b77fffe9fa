"""The numbers that were published for the paper's systems, each with how far it can be trusted.

Accuracies are fractions. Source: Jiang et al., "Self-Damaging Contrastive Learning", ICML 2021, arXiv 2106.02990. A row
is ``sourced`` where the figures were read in an opened source, and ``as reported, unverified`` where they were recalled
and only found consistent (the class-weighted mean of the groups reproduces "All"). Not in this file: anything measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Trust = Literal["sourced", "as reported, unverified"]
Arm = tuple[str, str]
"""(method, subset): ("simclr", "balanced") is SimCLR on D_b, ("sdclr", "long_tail") SDCLR on D_i."""


@dataclass(frozen=True)
class PublishedRow:
    """One cell of the paper's tables: means over the splits; None where a group was not reported."""

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
"""What their numbers were measured by: the paper's probes, or the very classifiers that the authors trained so."""

GROUPS = {"cifar10": "thirds", "cifar100": "thirds", "imagenet100": "thresholds", "imagenet_lt_exp": "thresholds"}

_COMMON: Mapping[str, Any] = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.5,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.final_learning_rate": 1e-6,
    "optimizer.decay_norms_and_biases": True,
    "backbone.width": 64,
    "backbone.pretrained": False,
    "weights": None,
    "views.aspect": [3 / 4, 4 / 3],
    "views.flip": 0.5,
    "views.jitter": [0.4, 0.4, 0.4, 0.1],
    "views.jitter_probability": 0.8,
    "views.grey": 0.2,
    "method.projection_dim": 128,
}
_CIFAR: dict[str, Any] = {
    **_COMMON,
    "backbone.name": "resnet18",
    "backbone.stem": "small",
    "epochs": 2000,
    "batch_size": 512,
    "views.size": 32,
    "views.area": [0.1, 1.0],
    "views.blur": 0.0,
}
_IMAGENET: dict[str, Any] = {
    **_COMMON,
    "backbone.name": "resnet50",
    "backbone.stem": "large",
    "epochs": 500,
    "batch_size": 256,
    "views.size": 224,
    "views.area": [0.08, 1.0],
    "views.blur": 0.5,
    "views.blur_sigma": [0.1, 2.0],
}
SETUP: Mapping[str, Mapping[str, Any]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet100": _IMAGENET,
    "imagenet_lt_exp": _IMAGENET,
}
"""What the published runs were, in the names of our settings; the recipes are tested to agree."""

_SIMCLR = {"method.projector_layers": 2, "method.temperature": 0.2}
_SDCLR = {"method.projector_layers": 3, "method.norms": "own", "method.random_share": 0.0, "method.prunable": "conv"}
_SDCLR_CIFAR = _SDCLR | {"method.temperature": 0.2, "method.prune_ratio": 0.9}
_SDCLR_IMAGENET100 = _SDCLR | {"method.temperature": 0.3, "method.prune_ratio": 0.3}
_BOTH_SIMCLR: Mapping[Arm, Mapping[str, Any]] = {("simclr", "balanced"): _SIMCLR, ("simclr", "long_tail"): _SIMCLR}
METHOD: Mapping[str, Mapping[Arm, Mapping[str, Any]]] = {
    "cifar10": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_CIFAR},
    "cifar100": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_CIFAR},
    "imagenet100": {**_BOTH_SIMCLR, ("sdclr", "long_tail"): _SDCLR_IMAGENET100},
    "imagenet_lt_exp": _BOTH_SIMCLR,
}
"""The published arms: head depth, norms, temperature and prune ratio."""

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
