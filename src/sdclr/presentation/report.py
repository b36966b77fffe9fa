"""The content of a report, as plain dataclasses: numbers, text and curves, not yet printed.

A arms, C classes. Every accuracy, spread and difference is a fraction here. This file computes no
results and does not define how a table is printed: ``tables``, ``html`` and ``report_json`` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sdclr.errors import ConfigError
from sdclr.mean_std import MeanStd
from sdclr.presentation.competitor import Competitor

Over = Literal["splits", "seeds"]
"""The repeats: splits, or trainings (seeds) on one split."""


@dataclass(frozen=True)
class Column:
    """One measured quantity of the result table."""

    key: str
    header: str
    meaning: str
    drop_order: int = 0
    """On a narrow terminal columns are left out, highest first; 0 is always shown."""


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
    """Splits, or seeds of one split."""
    values: Mapping[str, MeanStd]
    """By the key of a column."""


@dataclass(frozen=True)
class Comparison:
    """Mean of ``arm`` - ``baseline`` over the ``n`` common splits, or seeds, and its interval, as fractions."""

    probe: str
    measure: str
    """A column key."""
    baseline: str
    arm: str
    n: int
    interval: tuple[float, float, float] | None
    """(mean, low, high) of the 95 % t-interval; None with fewer than two in common, and for equal differences."""
    single: float | None = None
    """The difference on the only common split or seed, or the same difference on all of them."""
    over: Over = "splits"


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
    """[C], over the splits, or the seeds of one."""


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
    names: Sequence[str] = ()
    """Name of the class at each rank [C]; empty if it differs from split to split."""


@dataclass(frozen=True)
class ClassRow:
    """One class of a single evaluated run."""

    name: str
    group: str
    """many, medium or few."""
    num_train: int
    num_test: int | None
    accuracy: Mapping[str, float]
    """Probe -> accuracy; nan if the class was not tested."""


@dataclass(frozen=True)
class ArmCurves:
    """One quantity over the epochs of each of an arm's runs: (epoch from 1, value)."""

    arm: str
    runs: Sequence[Sequence[tuple[int, float]]]
    part: str = ""
    """Key of the curve's part, such as few; empty for a curve without parts."""


@dataclass(frozen=True)
class Curve:
    """A quantity of metrics.jsonl that reports draw over the epochs."""

    key: str
    """As in metrics.jsonl."""
    title: str
    ylabel: str
    caption: str = ""
    """Shown under the figure of several arms."""
    caption_alone: str = ""
    """Shown under the figure of a single run, if different."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """For several quantities: the suffix after ``key`` and _ in metrics.jsonl -> its name."""
    percent: bool = False
    """Whether it is a share, shown in percent."""
    section: str = "training"
    """The section of the page it belongs to."""


@dataclass(frozen=True)
class Curves:
    """A curve with the values that the arms have logged."""

    curve: Curve
    arms: Sequence[ArmCurves]
    marks: Sequence[tuple[int, str]] = ()
    """(epoch, cause) of the raised alarms."""
    reference: tuple[float, str] | None = None
    """A level to compare with, and its description."""


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
    "Mask churn (%)",
    "Share of the mask that changed when it was refreshed at the start of the epoch.",
    percent=True,
)
_GROUPS = {"many": "Many", "medium": "Medium", "few": "Few", "all": "All images"}
_BY_GROUP = (
    Curve(
        "health_knn",
        "Accuracy by group while training",
        "kNN accuracy (%)",
        "k-nearest neighbours within the images that the health of a run is measured on; epoch 0 is before training.",
        parts={name: _GROUPS[name] for name in ("many", "medium", "few")},
        percent=True,
        section="groups",
    ),
    Curve(
        "record_loss",
        "Loss by group",
        "Loss",
        "Mean over the training images of each group of classes, as each epoch recorded it.",
        parts=_GROUPS,
        section="records",
    ),
    Curve(
        "record_disagreement",
        "Disagreement by group",
        "1 - cosine",
        "Distance of an image's two projections (of the two branches, where there is a competitor), mean over the "
        "training images of each group.",
        parts=_GROUPS,
        section="records",
    ),
    Curve(
        "health_disagreement",
        "Disagreement of the branches by group",
        "1 - cosine",
        "Between the network and its competitor, on the images that the health of a run is measured on.",
        parts={name: _GROUPS[name] for name in ("many", "medium", "few")},
        section="groups",
    ),
    Curve(
        "mined",
        "Rare classes among the images that disagree most",
        "Images of few classes (%)",
        "Share of the images with the largest disagreement of an epoch that are of few classes. Above the dashed line, "
        "which is their share of all images, disagreement finds rare images.",
        parts={"1_few": "Among the top 1 %", "10_few": "Among the top 10 %"},
        percent=True,
        section="records",
    ),
)
_HEALTH = tuple(
    Curve(f"health_{key}", title, ylabel, meaning, percent=percent, section="health")
    for key, title, ylabel, meaning, percent in (
        (
            "top1",
            "Views find their partner",
            "Images (%)",
            "Share of views whose partner is the most similar of all.",
            True,
        ),
        (
            "spread",
            "Spread of the projections",
            "Of the largest possible",
            "0 is a collapse, 1 is spread evenly over all dimensions.",
            False,
        ),
        (
            "rank",
            "Effective rank of the features",
            "RankMe",
            "Directions that the features use. Compares runs of one method only.",
            False,
        ),
        (
            "alignment",
            "Alignment",
            "Squared distance",
            "Of two views of an image; lower is more alike.",
            False,
        ),
        (
            "uniformity",
            "Uniformity",
            "Log of mean potential",
            "Lower is more spread out.",
            False,
        ),
        ("lidar", "LiDAR", "LiDAR", "Compares runs of one method only.", False),
        ("alpha_req", "Power law of the spectrum", "α", "Compares runs of one method only.", False),
        (
            "competitor_rank",
            "Rank of the positive by the competitor",
            "Mean rank",
            "How many candidates the pruned branch finds more similar than the right one.",
            False,
        ),
        (
            "weight_change",
            "Change of the weights",
            "Of their size",
            "Since the check before.",
            False,
        ),
    )
)
CURVES: dict[str, Curve] = {
    curve.key: curve for curve in (_LOSS, _MASK_CHURN, *_BY_GROUP, *_HEALTH)
}
"""Key of metrics.jsonl -> how it is drawn, in the order of every report; a new curve is one row."""


def register_curve(key: str, title: str, *, ylabel: str | None = None, caption: str = "") -> Curve:
    """Draw one more quantity of metrics.jsonl in every HTML report, and return its row.

    ``key``: its name in the lines of metrics.jsonl; arms whose runs have not logged it are left out
    of the figure. ``ylabel``: by default the title. Raises ConfigError if the key is already drawn
    differently.

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
    """The provenance of one run's numbers."""

    folder: str
    arm: str
    split: int
    seed: int
    command: str
    commit: str
    created: str


@dataclass(frozen=True)
class Glance:
    """The summary at the top of a report."""

    verdict: str
    """Whether it worked, with its interval; or why that is unknown."""
    kind: Literal["good", "bad", "open"]
    command: str
    """The command that answers an open question; empty if it is answered."""
    rows: Sequence[tuple[str, str]]
    """What was trained, on what, for how long: (question, answer)."""
    more: Sequence[str] = ()
    """Further sentences of the verdict."""


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
    over: Over = "splits"
    """What means, stds and intervals are computed over; n counts these."""
    classes: Sequence[ClassRow] = ()
    """For a single run: its classes, most training images first."""
    glance: Glance | None = None
    competitors: Mapping[str, Competitor] = field(default_factory=dict)
    """Arm -> the competitor of its first run that has one."""

    @property
    def is_as_given(self) -> bool:
        """Whether the images are the user's own, without a drawn split."""
        return bool(self.splits) and all(split.source == "as given" for split in self.splits)

    @property
    def subsets(self) -> list[str]:
        """The non-empty subsets of the splits; for images used as given, without other names for the same subset."""
        counts = self.splits[0].counts if self.splits else {}
        filled = [name for name in counts if any(sum(split.counts[name]) for split in self.splits)]
        again = ("long_tail", "few_shot") if self.is_as_given and "train" in filled else ()
        return [name for name in filled if name not in again]
