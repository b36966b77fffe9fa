"""What the page of a single run shows besides its tables, as plain dataclasses; computes no results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sdclr.presentation.competitor import Competitor
from sdclr.presentation.profile import CollectionProfile
from sdclr.presentation.report import Glance
from sdclr.safe_text import counted


@dataclass(frozen=True)
class Rival:
    """One probe of the run beside the same probe of an alternative to it; fractions."""

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
    num_few_tested: int | None = None
    """Tested images of the few classes; None if written by an earlier version."""
    num_ways: int | None = None
    """Ways to deal the folds over which accuracies are averaged; None if written by an earlier version."""
    num_groups: int | None = None
    """Groups of tested images that were resampled whole; None where single images were."""


def labelled_title(kind: str, value: float | None, source: str | None) -> str:
    """The title of a set of labelled images.

    >>> labelled_title("labels_per_class", 5, None), labelled_title("label_share", 0.01, None)
    ('5 labels a class', '1 % of the labels')
    """
    if kind == "file" or value is None:
        return str(source)
    if kind == "label_share":
        return f"{100 * value:g} % of the labels"
    return f"{counted(int(value), 'label')} a class"


@dataclass(frozen=True)
class FewLabelsRow:
    """A probe on sets of labelled images of one size; fractions."""

    protocol: str
    probe: str
    kind: str
    """How the sets are specified: labels_per_class, label_share or file."""
    title: str
    num_labelled: int
    per_class: float
    """Labelled images per class, on average."""
    accuracies: Sequence[float]
    """For each drawn set."""
    mean: float
    interval: tuple[float, float] | None
    """95 % interval over the drawn sets."""
    few: float | None
    """Mean over the few classes."""


@dataclass(frozen=True)
class PlacedImage:
    """An image on the map."""

    path: str
    label: str
    x: float
    y: float
    picture: str
    """A data: URL."""


@dataclass(frozen=True)
class EmbeddingMap:
    """A sample of the images on the two largest principal axes of their features."""

    images: Sequence[PlacedImage]
    explained: float
    """Share of the variance that the two axes explain."""


@dataclass(frozen=True)
class RaisedAlarm:
    """An alarm that the run has raised about itself."""

    epoch: int
    cause: str
    remedy: str


@dataclass(frozen=True)
class RunDetails:
    """All details; empty ones are missing, and ``why_missing`` may give the reason."""

    glance: Glance
    rivals: Sequence[Rival] = ()
    few_labels: Sequence[FewLabelsRow] = ()
    competitor: Competitor = field(default_factory=Competitor)
    map: EmbeddingMap | None = None
    collection: CollectionProfile | None = None
    """The profile of the run's own images, once they were mined and profiled."""
    collection_pictures: Mapping[str, str] = field(default_factory=dict)
    """Name -> a small JPEG in base64."""
    alarms: Sequence[RaisedAlarm] = ()
    num_checks: int = 0
    """Epochs in which the health of the run was measured."""
    environment: Sequence[tuple[str, str]] = ()
    why_missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a section -> a sentence, with the command that creates it."""
