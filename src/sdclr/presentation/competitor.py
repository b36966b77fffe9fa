"""What is shown about a run's competitor, as plain dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One prunable layer."""

    name: str
    density: float
    """Share of its weights that the competitor keeps."""
    num_weights: int


@dataclass(frozen=True)
class Distribution:
    """How many images of each group are in each bin."""

    edges: Sequence[float]
    """[bins + 1]"""
    counts: Mapping[str, Sequence[int]]
    """Group -> [bins]"""


@dataclass(frozen=True)
class Competitor:
    """The competitor of one run, at its end."""

    layers: Sequence[Layer] = ()
    disagreement: Distribution | None = None
