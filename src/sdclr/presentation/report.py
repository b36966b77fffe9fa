"""What a report shows, as plain dataclasses: numbers, words and curves, not yet printed.

A arms, C classes. Every accuracy, spread and difference is a fraction here. This file computes no
result, and says nothing of how a table is printed: ``tables``, ``html`` and ``report_json`` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdclr.errors import ConfigError
from sdclr.mean_std import MeanStd


@dataclass(frozen=True)
class Column:
    """One measured quantity of the result table."""

    key: str
    header: str
    meaning: str
    drop_order: int = 0
    """On a narrow terminal columns are left out, highest first; 0 stays."""


COLUMNS = (
    Column("many", "Many", "mean accuracy of the classes with many training images", 1),
    Column("medium", "Medium", "mean accuracy of the classes in between", 2),
    Column("few", "Few", "mean accuracy of the classes with few training images"),
    Column(
        "group_std",
        "Std (lower is better)",
        "population std of Many, Medium and Few: the paper's balancedness",
    ),
    Column("gap", "Gap", "Many - Few", 3),
    Column("worst_class", "Worst class", "accuracy of the worst class", 4),
    Column("all", "All", "mean of the per-class accuracies"),
)
HEADERS = {column.key: column.header for column in COLUMNS} | {"group_std": "Std"}


@dataclass(frozen=True)
class Row:
    """One arm under one probe."""

    probe: str
    arm: str
    n: int
    """Splits."""
    values: Mapping[str, MeanStd]
    """By the key of a column."""


@dataclass(frozen=True)
class Comparison:
    """Mean of ``arm`` - ``baseline`` over the ``n`` splits that both have, with its interval, as fractions."""

    probe: str
    measure: str
    """A column key."""
    baseline: str
    arm: str
    n: int
    interval: tuple[float, float, float] | None
    """(mean, low, high) of the 95 % t-interval; None with fewer than two shared splits."""


@dataclass(frozen=True)
class Fact:
    """One setting or measurement, a text for each arm."""

    name: str
    values: Sequence[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class ArmBars:
    """One arm's accuracy by rank of the training count."""

    arm: str
    ranks: Sequence[MeanStd]
    """[C], over the splits."""


@dataclass(frozen=True)
class ClassBars:
    """Accuracy by rank of the training count, rank 1 (most images) first."""

    probe: str
    counts: Sequence[int]
    """Training images of each rank [C]."""
    groups: Sequence[str]
    """many, medium or few, for each rank [C]."""
    chance: float
    arms: Sequence[ArmBars]


@dataclass(frozen=True)
class ArmCurves:
    """One quantity over the epochs of each of an arm's runs: (epoch from 1, value)."""

    arm: str
    runs: Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Curve:
    """A quantity of metrics.jsonl that reports draw over the epochs."""

    key: str
    """As in metrics.jsonl."""
    title: str
    ylabel: str
    caption: str = ""
    """Under the figure of several arms."""
    caption_alone: str = ""
    """Under the figure of a run that is shown alone, where that is to say something else."""


@dataclass(frozen=True)
class Curves:
    """A curve with what the arms have logged of it."""

    curve: Curve
    arms: Sequence[ArmCurves]


_LOSS = Curve(
    "loss",
    "Training loss",
    "Loss",
    "The losses of SimCLR and SDCLR are different quantities: compare shapes, not heights.",
    "Of a contrastive loss the height says little; that it falls and settles is the sign to look for.",
)
_MASK_CHURN = Curve(
    "mask_churn",
    "Mask churn",
    "Mask churn",
    "Share of the mask that changed when it was refreshed at the start of the epoch.",
)
CURVES: dict[str, Curve] = {curve.key: curve for curve in (_LOSS, _MASK_CHURN)}
"""Key of metrics.jsonl -> how it is drawn, in the order of every report; a new curve is one row."""


def register_curve(key: str, title: str, *, ylabel: str | None = None, caption: str = "") -> Curve:
    """Draw one more quantity of metrics.jsonl in every HTML report, and return its row.

    ``key``: its name in the lines of metrics.jsonl; arms whose runs have not logged it are left out
    of the figure. ``ylabel``: the title if it is not given. Raises ConfigError where the key is
    drawn already, as something else.

    >>> register_curve("learning_rate", "Learning rate").ylabel
    'Learning rate'
    >>> _ = CURVES.pop("learning_rate")
    """
    curve = Curve(key, title, ylabel or title, caption)
    if CURVES.setdefault(key, curve) != curve:
        raise ConfigError(f"{key!r} is drawn already, as {CURVES[key].title!r}.")
    return curve


@dataclass(frozen=True)
class SplitCounts:
    """The images of one split."""

    number: int
    name: str
    seed: int | None
    source: str
    fingerprint: str
    counts: Mapping[str, Sequence[int]]
    """Subset -> images of each class [C]."""


@dataclass(frozen=True)
class RunRecord:
    """Where one run's numbers come from."""

    folder: str
    arm: str
    split: int
    seed: int
    command: str
    commit: str
    created: str


@dataclass(frozen=True)
class Report:
    """All that is shown, in the order of the arms."""

    title: str
    description: str
    group_convention: str
    """thirds or thresholds."""
    dataset: str
    protocol: str
    chance: float
    arms: Sequence[str]
    probes: Mapping[str, str]
    """Name -> heading of every probe that was measured, in the order of every table."""
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    facts: Sequence[Fact]
    probe_details: Mapping[str, str]
    """Probe -> how it was fitted, in words."""
    bars: Sequence[ClassBars]
    curves: Sequence[Curves]
    class_names: Sequence[str]
    splits: Sequence[SplitCounts]
    runs: Sequence[RunRecord]
    versions: Mapping[str, str]
