"""The paper's table as data: every split, mean ± std over the splits, and the published row.

For each arm under each probe. Accuracies and spreads are fractions. This file computes no results;
``paper_table`` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sdclr.mean_std import MeanStd

COLUMNS = {
    "all": "All",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "group_std": "Std of groups",
    "class_std": "Std of classes",
}
"""Field of a balancedness -> header. Both spreads are better when lower."""

SETTINGS = ("head depth", "norms", "temperature", "prune ratio")
"""The settings shown in every row: the known confounds of the published comparison."""


@dataclass(frozen=True)
class PaperRow:
    """One row: a single split, the mean over the splits, or the published numbers."""

    kind: Literal["split", "mean", "published"]
    label: str
    """"split 3", "mean ± std over 5 splits", "published (as reported, unverified)"."""
    settings: Sequence[str]
    """In the order of SETTINGS."""
    values: Mapping[str, MeanStd]
    """By column; missing columns are unknown."""
    num_runs: int | None = None
    """Trainings that the row rests on: the seeds of a split, or those of all splits. None for a published one."""


@dataclass(frozen=True)
class PaperArm:
    """One arm under one probe."""

    probe: str
    label: str
    """"SDCLR on D_i"."""
    rows: Sequence[PaperRow]


@dataclass(frozen=True)
class PaperTable:
    """All that is shown, probe by probe."""

    title: str
    dataset: str
    protocol: str
    probes: Mapping[str, str]
    """Name -> heading, in the order of every table."""
    arms: Sequence[PaperArm]
    notes: Sequence[str]
    published_protocol: str
    """The protocol of the published rows."""
