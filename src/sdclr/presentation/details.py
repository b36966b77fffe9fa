"""What the page of a single run shows besides its tables, as plain dataclasses; computes no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sdclr.presentation.report import Glance


@dataclass(frozen=True)
class Rival:
    """One probe of the run beside the same probe of what one would have used without it; fractions."""

    probe: str
    rival: str
    ours: float
    theirs: float
    all: tuple[float, float, float]
    """(difference, low, high) of the mean over the classes, 95 % interval."""
    few: tuple[float, float, float] | None
    """The same over the few classes."""
    num_tested: int
    verdict: str
    """better, worse or open."""


@dataclass(frozen=True)
class Layer:
    """One prunable layer."""

    name: str
    density: float
    """Share of its weights that the competitor keeps."""
    num_weights: int


@dataclass(frozen=True)
class Distribution:
    """How many images of each group lie in each bin."""

    edges: Sequence[float]
    """[bins + 1]"""
    counts: Mapping[str, Sequence[int]]
    """Group -> [bins]"""


@dataclass(frozen=True)
class PlacedImage:
    """An image on the map."""

    path: str
    label: str
    x: float
    y: float
    picture: str
    """A data: address."""


@dataclass(frozen=True)
class EmbeddingMap:
    """A sample of the images on the two largest principal axes of their features."""

    images: Sequence[PlacedImage]
    explained: float
    """Share of the variance that the two axes hold."""


@dataclass(frozen=True)
class RaisedAlarm:
    """A suspicion that the run had about itself."""

    epoch: int
    cause: str
    remedy: str


@dataclass(frozen=True)
class RunDetails:
    """All of it; what is empty is missing, and ``why_missing`` may say why."""

    glance: Glance
    rivals: Sequence[Rival] = ()
    layers: Sequence[Layer] = ()
    disagreement: Distribution | None = None
    map: EmbeddingMap | None = None
    alarms: Sequence[RaisedAlarm] = ()
    num_checks: int = 0
    """Epochs in which the health of the run was measured."""
    environment: Sequence[tuple[str, str]] = ()
    why_missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a section -> a sentence, with the command that brings it."""
